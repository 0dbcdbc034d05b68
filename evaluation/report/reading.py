"""What evaluations left behind: summaries, answers, maps and costs, and the benchmark files they speak of.

A results folder must have a summary.json; everything else may be missing, and the report says what it leaves
out. Nothing is written and no model is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.benchmark import Benchmark
from data.files import read_json, require_unchanged, unseal
from evaluation.report.questions import Questions, read_questions

log = logging.getLogger(__name__)
ANCHOR_MAP, COSTS = "anchor_map.json", "costs.json"  # what an evaluation leaves for the report
JUDGED = "judged.json"  # what scripts/judge_answers.py may leave beside
ANEW = dict.fromkeys((ANCHOR_MAP, COSTS), "an evaluation (bash eval_all_tasks.sh) writes it anew")
ANEW[JUDGED] = "scripts/judge_answers.py with --json writes it anew"
ALL = "all"  # the view of the map with all modalities together
NEEDED = ("benchmark", "tasks", "seeds", "methods", "formulas", "provenance")


@dataclass(frozen=True)
class Results:
    """One evaluation."""

    name: str  # of its folder; unique in a report
    folder: Path | None  # None for a summary without a folder
    summary: Mapping[str, Any]
    questions: Questions = field(default_factory=Questions)
    answers: tuple[tuple[Mapping[str, Any], ...], ...] = ()  # task after task: the published results files
    anchor_map: Mapping[str, Any] | None = None
    costs: Mapping[str, Any] | None = None
    judged: Mapping[str, Any] | None = None

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(self.summary["tasks"])

    @property
    def protocol(self) -> str:
        """A sentence on which questions were asked, in the words of the benchmark file."""
        stated = self.summary["provenance"].get("protocol")
        return f"Protocol: {stated}." if stated else "The benchmark file states no protocol."

    @property
    def methods(self) -> Mapping[str, Mapping[str, Any]]:
        """Method -> its entry, in the summary's order."""
        return self.summary["methods"]


def read_all_results(paths: Sequence[Path]) -> list[Results]:
    """Read every result; folders as evaluation/eval_all.py writes them, or single summary files.

    Raises:
        ValueError: with every fault found, before the long work: no summary, damaged, two of one name.
    """
    faults, found = [], []
    for path in paths:
        try:
            found.append((path, read_summary(path)))
        except (ValueError, OSError) as error:
            faults.append(str(error))
    names = [_name(path) for path in paths]
    for position, name in enumerate(names):
        if name in names[:position]:
            first = paths[names.index(name)]
            faults.append(f"{paths[position]}: named {name!r} as {first} is; rename one of the two")
    if faults:
        raise ValueError("\n".join(faults))
    return [_read(path, summary) for path, summary in found]


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of a results folder, or a summary file itself; raises ValueError if it is not one."""
    file = path / "summary.json" if path.is_dir() else path
    if not file.is_file():
        hint = "evaluate first (bash eval_all_tasks.sh)" if path.is_dir() else "check the path"
        raise ValueError(f"{file}: no such file; {hint}")
    require_unchanged(file)
    content = read_json(file)
    missing = [key for key in NEEDED if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(
            f"{file}: no summary of an evaluation, {', '.join(missing)} missing; name a folder that "
            "evaluation/eval_all.py wrote"
        )
    tasks, methods = content["tasks"], content["methods"]
    shaped = isinstance(methods, dict) and isinstance(content["provenance"], dict)
    if not tasks or not isinstance(tasks, list) or not shaped:
        raise ValueError(
            f"{file}: tasks, methods or provenance are not as evaluation/eval_all.py writes them"
        )
    for name, entry in methods.items():
        rows = entry.get("matrix") if isinstance(entry, dict) else None
        if not isinstance(rows, list) or [len(row) for row in rows] != [len(tasks)] * len(tasks):
            raise ValueError(
                f"{file}: method {name!r} has no accuracy matrix of {len(tasks)} x {len(tasks)} cells; "
                "evaluate again"
            )
    return content


def _name(path: Path) -> str:
    resolved = path.resolve()
    return resolved.stem if resolved.suffix == ".json" else resolved.name


def _read(path: Path, summary: dict[str, Any]) -> Results:
    folder = path if path.is_dir() else None
    questions = read_questions(summary)
    seed = summary["seeds"][0] if summary["seeds"] else 0
    first = folder if folder is None or seed == 0 else folder / f"seed_{seed}"
    return Results(
        _name(path),
        folder,
        summary,
        questions,
        _answers(first, summary, questions.benchmark),
        _optional(first, ANCHOR_MAP),
        _optional(folder, COSTS),
        _optional(folder, JUDGED),
    )


def _optional(folder: Path | None, name: str) -> Mapping[str, Any] | None:
    """What `read_beside` finds; None where there is none, and with a warning where it is damaged."""
    if folder is None or not (folder / name).is_file():
        return None
    try:
        return read_beside(folder / name)
    except ValueError as error:
        log.warning("%s; it is left out", error)
        return None


def read_beside(path: Path) -> dict[str, Any]:
    """A map, costs or verdicts without the checksum, which those of earlier versions lack.

    Raises ValueError for a damaged file, OSError for a missing one.
    """
    try:
        return unseal(path.read_bytes())[0]
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); {ANEW[path.name]}") from error


def _answers(
    place: Path | None, summary: Mapping[str, Any], benchmark: Benchmark | None
) -> tuple[tuple[Mapping[str, Any], ...], ...]:
    """The results files in the first seed's folder, in task order; nothing unless every task has one."""
    if place is None:
        return ()
    if benchmark is not None:
        files = [place / task.results_file for task in benchmark.tasks]
    else:
        files = sorted(place.glob("task*_results.json"), key=lambda file: (len(file.name), file.name))
    if len(files) != len(summary["tasks"]) or not all(file.is_file() for file in files):
        return ()
    try:
        for file in files:
            require_unchanged(file)
        read = [read_json(file) for file in files]
    except ValueError as error:
        log.warning("%s", error)
        return ()
    if not all(isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in read):
        log.warning("%s: results files of another shape are left out", place)
        return ()
    return tuple(tuple(rows) for rows in read)
