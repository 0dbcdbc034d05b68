"""Write the README's results tables from committed summaries; nothing is typed by hand.

    python scripts/results_tables.py                  # rewrites the part of README.md between the markers
    python scripts/results_tables.py --add data_sample eval_results/AVQA/summary.json

A summary in docs/results/ is what evaluation/eval_all.py wrote, without the paths and the machine of its
provenance.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.files import read_json, require_unchanged, write_bytes_atomic, write_json_atomic
from evaluation.tables import metric_table, to_markdown

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
TITLES = {
    "data_sample": "Embedded sample data (`data_sample/avqa.json`), tiny backbone, test questions",
    "stamps_avqa": "`stamps_avqa`: real photographs and recordings as four tasks, same scripts and settings",
}
KEPT = (
    "split",
    "base_identity",
    "router",
    "max_new_tokens",
    "inputs",
    "versions",
    "commit",
    "python",
    "data",
)


def add(results: Path, name: str, summary_file: Path) -> None:
    """Copy a summary into `results`, with the part of its provenance that says what was run."""
    if name not in TITLES:
        raise ValueError(f"--add {name}: expected one of {', '.join(TITLES)}")
    require_unchanged(summary_file)
    summary = read_json(summary_file)
    summary["provenance"] = {key: summary["provenance"].get(key) for key in KEPT}
    write_json_atomic(results / f"{name}.json", summary)


def section(results: Path) -> str:
    """The tables of all committed summaries as Markdown."""
    parts = []
    for name, title in TITLES.items():
        path = results / f"{name}.json"
        if path.is_file():
            summary = json.loads(path.read_text())
            seeds = " ".join(map(str, summary["seeds"]))
            parts.append(f"{title}, seeds {seeds}:\n\n{to_markdown(metric_table(summary))}")
    return "\n\n".join(parts)


def with_section(readme: str, text: str) -> str:
    """The README with the part between the markers replaced. Raises ValueError if a marker is missing."""
    if BEGIN not in readme or END not in readme:
        raise ValueError(
            f"README.md: the markers {BEGIN} and {END} are missing; put them where the tables belong"
        )
    head, rest = readme.split(BEGIN, 1)
    return f"{head}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}"


def main() -> int:
    """Parse, add, rewrite."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--add", nargs=2, metavar=("NAME", "SUMMARY"), help="commit a summary first")
    arguments = parser.parse_args()
    if arguments.add:
        add(root / "docs" / "results", arguments.add[0], Path(arguments.add[1]))
    readme = root / "README.md"
    write_bytes_atomic(readme, with_section(readme.read_text(), section(root / "docs" / "results")).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
