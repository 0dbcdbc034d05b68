"""Convert experts and anchors between .pt and .safetensors, exactly, and check it by reading both back.

    python scripts/convert_tensors.py output/AVQA/experts/*.pt output/AVQA/anchors/*.pt

Each file gets its twin in the other container beside it; what was given stays. The statistics of anchors are
safetensors already.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.command_line import main_command
from model.moe.files import other_container, read_tensor_file, write_tensor_file


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("files", type=Path, nargs="+", help=".pt or .safetensors files")
    made.add_argument("--overwrite", action="store_true", help="replace a twin that differs")
    return made


def main(arguments: argparse.Namespace) -> None:
    """Convert every file."""
    for path in arguments.files:
        print(convert(path, overwrite=arguments.overwrite))


def convert(path: Path, *, overwrite: bool = False) -> Path:
    """Write the twin of a file in the other container; returns its path.

    Raises:
        ValueError: unreadable, of another suffix, or the twin is there and differs.
    """
    twin = other_container(path)
    if twin is None or path.name.endswith(".stats.safetensors"):
        raise ValueError(f"{path}: expected an expert or anchor, .pt or .safetensors")
    if overwrite and path.is_file():
        twin.unlink(missing_ok=True)
    content = read_tensor_file(path)
    write_tensor_file(twin, content)
    read_tensor_file(twin)  # compares both
    return twin


if __name__ == "__main__":
    sys.exit(main_command(parser(), main))
