"""Make a benchmark folder from annotation files: sample files, and the file that BENCHMARK= takes.

    python scripts/make_benchmark.py split_avqa --annotations FOLDER --out benchmarks/split_avqa
    BENCHMARK=benchmarks/split_avqa/split_avqa.json bash train_all_tasks.sh

Questions are counted per task and split and compared with known counts. Media paths are relative to the media
root, which stands in the benchmark file alone. docs/benchmarks.md says where annotations come from.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.benchmarks.build import Choices, build, differences, table
from data.benchmarks.recipe import load_recipe, recipe_names
from data.command_line import main_command

log = logging.getLogger(__name__)


def make_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=recipe_names())
    parser.add_argument("--annotations", type=Path, required=True, help="folder of the annotation files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--media_root", type=Path, help="folder of the media (OUT/media)")
    parser.add_argument(
        "--media", choices=("frames", "videos"), default="frames", help="what the samples name (frames)"
    )
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip (8)")
    parser.add_argument(
        "--videos", choices=("real", "all"), default="real", help="recorded clips only (real)"
    )
    parser.add_argument(
        "--drop_missing", action="store_true", help="leave out questions about clips without media"
    )
    parser.add_argument(
        "--sessions", type=Path, help="JSON list of steps, each a list of labels: one task per type and step"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Write the folder and print the counts."""
    recipe = load_recipe(arguments.benchmark)
    choices = Choices(
        media_root=arguments.media_root,
        media=arguments.media,
        frames=arguments.frames,
        synthetic=arguments.videos == "all",
        drop_missing=arguments.drop_missing,
        sessions=arguments.sessions,
    )
    counts = build(recipe, arguments.benchmark, arguments.annotations, arguments.out, choices)
    print("\n".join(table(counts)))
    for line in differences(recipe.title, counts):
        log.warning(line)
    print(f"BENCHMARK={arguments.out / arguments.benchmark}.json")


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
