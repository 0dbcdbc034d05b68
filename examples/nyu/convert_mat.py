"""Write the official nyu_depth_v2_labeled.mat in MTAN's layout.

    python convert_mat.py nyu_depth_v2_labeled.mat OUT --splits splits.mat --mapping mapping.npy

--splits: the official splits.mat (trainNdxs, testNdxs); without it 795 images are drawn by a seed, which is
not the published split. --mapping: a .npy or text file with the class 0 to 12, or -1, of each label number
from 0; without it classes are guessed from the names. Normals are those of an array `normals` (N, 3, W, H) in
the file, unit vectors with x right, y down, z forward; the official file has none, and they are then
estimated from depth.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import h5py
import numpy as np
from scipy.io import loadmat

from data.dense.folder import read_array
from data.dense.nyu_mat import Split, convert, seeded_split
from data.manners import main_command

TRAINING_IMAGES = 795


def make_parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mat", type=Path, help="nyu_depth_v2_labeled.mat")
    parser.add_argument("out", type=Path, help="folder to write train/ and val/ to; none may be there")
    parser.add_argument("--splits", type=Path, help="splits.mat")
    parser.add_argument("--mapping", type=Path, help="class of each label number, .npy or text")
    parser.add_argument("--size", type=int, nargs=2, default=(288, 384), help="height and width (288 384)")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Convert."""
    if arguments.splits is not None:
        split = read_split(arguments.splits)
    else:
        with h5py.File(arguments.mat, "r") as file:
            split = seeded_split(len(file["images"]), TRAINING_IMAGES)
    mapping = None
    if arguments.mapping is not None:
        read = read_array if arguments.mapping.suffix == ".npy" else np.loadtxt
        mapping = np.asarray(read(arguments.mapping), np.float64).ravel()
    convert(arguments.mat, arguments.out, split, mapping, tuple(arguments.size))
    print(f"{len(split.train)} training and {len(split.val)} test images in {arguments.out}")


def read_split(path: Path) -> Split:
    """The published split; ValueError naming the file for any other content."""
    try:
        found = loadmat(path)  # numbers only: MATLAB's objects and functions are left as bytes
        return Split(*(found[key].ravel().astype(int) - 1 for key in ("trainNdxs", "testNdxs")))
    except Exception as error:  # scipy raises anything on a damaged file
        raise ValueError(f"{path}: no trainNdxs and testNdxs ({error}); download it again") from error


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
