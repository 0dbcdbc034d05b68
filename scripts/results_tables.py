"""Write the results tables of README, docs/methods.md and docs/routing.md from committed summaries; nothing
is typed by hand.

    python scripts/results_tables.py                  # rewrites the parts of the pages between the markers
    python scripts/results_tables.py --add data_sample eval_results/AVQA/summary.json

A summary in docs/results/ is what evaluation/eval_all.py wrote, without the paths and the machine of its
provenance.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.files import read_json, require_unchanged, write_bytes_atomic, write_json_atomic
from evaluation.tables import metric_table, to_markdown

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
TITLES = {
    "data_sample": "Embedded sample data (`data_sample/avqa.json`), tiny backbone, test questions",
    "stamps_avqa": "`stamps_avqa`: real photographs and recordings as four tasks, same scripts and settings",
    "methods_data_sample": "Embedded sample data (`data_sample/avqa.json`), tiny backbone, test questions",
    "methods_stamps": "`stamps_avqa`: real photographs and recordings as four tasks, test questions",
    "rules_data_sample": "Embedded sample data, tiny backbone, 400 test questions",
}
PAGES = {
    "README.md": ("data_sample", "stamps_avqa"),
    "docs/methods.md": ("methods_data_sample", "methods_stamps"),
    "docs/routing.md": ("rules_data_sample",),
}
KEPT = (
    "protocol",
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
    about = summary["provenance"]
    summary["provenance"] = {key: about[key] for key in KEPT if key in about}
    write_json_atomic(results / f"{name}.json", summary)


def section(results: Path, names: Sequence[str]) -> str:
    """The tables of these committed summaries as Markdown."""
    parts = []
    for name in names:
        path = results / f"{name}.json"
        if path.is_file():
            summary = json.loads(path.read_text())
            seeds = " ".join(map(str, summary["seeds"]))
            parts.append(f"{TITLES[name]}, seeds {seeds}:\n\n{to_markdown(metric_table(summary))}")
    return "\n\n".join(parts)


def with_section(page: str, text: str) -> str:
    """A page with the part between the markers replaced. Raises ValueError if a marker is missing."""
    if BEGIN not in page or END not in page:
        raise ValueError(f"the markers {BEGIN} and {END} are missing; put them where the tables belong")
    head, rest = page.split(BEGIN, 1)
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
    for page, names in PAGES.items():
        text = with_section((root / page).read_text(), section(root / "docs" / "results", names))
        write_bytes_atomic(root / page, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
