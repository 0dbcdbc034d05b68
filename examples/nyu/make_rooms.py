"""Write made rooms in NYUv2's layout (MTAN): seeded, with exact label, depth and normal for every image.

    python make_rooms.py OUT --train 400 --val 100 --size 144 192 --seed 1

`main.py --dataset_path rooms` makes a small set by itself.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from data.dense.rooms import write_rooms
from data.manners import main_command


def make_parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to write train/ and val/ to")
    parser.add_argument("--train", type=int, default=160, help="training images (160)")
    parser.add_argument("--val", type=int, default=40, help="test images (40)")
    parser.add_argument("--size", type=int, nargs=2, default=(72, 96), help="height and width (72 96)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Write the rooms."""
    write_rooms(arguments.out, arguments.train, arguments.val, *arguments.size, arguments.seed)
    print(f"{arguments.train} training and {arguments.val} test rooms in {arguments.out}")


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
