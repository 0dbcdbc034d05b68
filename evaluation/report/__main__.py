"""Write the report on one or several evaluations: report.html, report.md and report.tex.

    python -m evaluation.report eval_results/AVQA
    python -m evaluation.report eval_results/* --output report

RESULTS is a folder that eval_all_tasks.sh wrote, or a summary.json kept elsewhere. Media are read for the
examples' frames only; docs/report.md tells what each part means.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from data.manners import main_command
from evaluation.report.build import EXAMPLES
from evaluation.report.writing import write_pages

log = logging.getLogger("report")


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = argparse.ArgumentParser(
        prog="python -m evaluation.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "results", type=Path, nargs="+", metavar="RESULTS", help="results folder, or a summary file"
    )
    made.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write (RESULTS if it is one folder, else report)"
    )
    made.add_argument(
        "--examples", type=int, default=EXAMPLES, metavar="N", help=f"at most N examples ({EXAMPLES})"
    )
    made.add_argument(
        "--media",
        choices=("yes", "no"),
        default="yes",
        help="show frames of the examples' clips (yes)",
    )
    return made


def main(arguments: argparse.Namespace) -> None:
    """Read, then write."""
    if arguments.examples < 0:
        raise ValueError(f"--examples: got {arguments.examples}, expected 0 or more")
    output = arguments.output
    if output is None:
        one = len(arguments.results) == 1 and arguments.results[0].is_dir()
        output = arguments.results[0] if one else Path("report")
    for path in write_pages(arguments.results, output, arguments.examples, arguments.media == "yes"):
        log.info("%s, %.0f kB", path, path.stat().st_size / 1e3)


if __name__ == "__main__":
    sys.exit(main_command(parser(), main))
