"""Extract the frames and the sound of official videos to where a benchmark's sample files name them.

    python scripts/extract_frames.py --benchmark benchmarks/split_avqa/split_avqa.json --videos FOLDER

All cores work; stopped and started again, it goes on. Videos are found below FOLDER by the names of the clips
(NAME.mp4, for AVQA also NAME_000030.mp4 and NAME_trimmed.mp4). Clips that fail are listed and the exit status
is 1; `make_benchmark.py --drop_missing` makes the benchmark without them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.benchmark import read_benchmark
from data.benchmarks.extraction import VideoFolder, clips_of, extract
from data.command_line import main_command
from data.files import only_run_in, require_writable
from data.parallel import count_cores
from data.problems import SHOWN


def make_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmark", type=Path, required=True, help="benchmark file")
    parser.add_argument("--videos", type=Path, required=True, help="folder of the videos, searched in depth")
    parser.add_argument("--jobs", type=int, default=count_cores(), help="processes (as many as cores)")
    parser.add_argument("--failed", type=Path, help="file to write the failed clips to, one a line")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Extract what is missing. Raises ValueError listing the clips that failed."""
    if arguments.jobs < 1:
        raise ValueError(f"--jobs: got {arguments.jobs}, expected at least 1")
    benchmark = read_benchmark(arguments.benchmark)
    clips = clips_of(benchmark)
    root = benchmark.media_root or arguments.benchmark.parent
    require_writable(root)
    with only_run_in(root):
        failures = extract(clips, VideoFolder(arguments.videos), arguments.jobs)
    lines = [f"{failure.clip}: {failure.reason}" for failure in failures]
    if arguments.failed is not None:
        arguments.failed.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    if failures:
        more = f"\n  and {len(lines) - SHOWN} more (--failed FILE keeps all)" if len(lines) > SHOWN else ""
        raise ValueError(
            f"{len(lines)} of {len(clips)} clips failed; give their videos and start again, or leave them "
            "out with make_benchmark.py --drop_missing:\n  " + "\n  ".join(lines[:SHOWN]) + more
        )
    print(f"{len(clips)} clips below {root}")


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
