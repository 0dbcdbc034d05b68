"""The same answers by exact match, by normalised match and by an LLM judge.

What the judge made of them stands in the results folder's judged.json, as `scripts/judge_answers.py --json`
writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from evaluation.report.document import MISSING, UP, Block, Cell, Section, Text, table
from evaluation.report.examples import complete, is_right
from evaluation.report.reading import JUDGED, Results
from evaluation.report.scores import NORMALISED, SPACE, method_cell, number
from evaluation.summary import TESTED

SHARES = ("exact", "normalised", "judged", "agreement")  # percent
COUNTS = ("n", "failed_answers", "unparsable", "failed_verdicts")
ASK = f"scripts/judge_answers.py with --json RESULTS/{JUDGED} writes it, see docs/scoring.md"


def scoring_section(results: Results) -> Section:
    """MA by exact and normalised match, then what a judge says, or why there is none."""
    return Section("scoring", "Ways to call an answer right", (*_normalised(results), *_judged(results)))


def _normalised(results: Results) -> list[Block]:
    """A row for each method that has both; nothing for a summary of an earlier version."""
    rows = [
        [
            method_cell(name, strong=name == TESTED),
            number(entry["MA"], entry.get("MA_std")),
            number(entry[NORMALISED], entry.get(f"{NORMALISED}_std")),
        ]
        for name, entry in results.methods.items()
        if entry.get("MA") is not None and entry.get(NORMALISED) is not None
    ]
    caption = (
        "MA by exact match, as in the table above, and by normalised match, which also forgives punctuation, "
        "number words and the benchmark's aliases."
    )
    header: list[str | Cell] = ["method", *(Cell(f"{name}{SPACE}{UP}") for name in SHARES[:2])]
    return [table(caption, header, rows)] if rows else []


def _judged(results: Results) -> list[Block]:
    """A row for each results file that was judged, and their means; or why there is none."""
    content = results.judged
    if content is None:
        return [Text(f"No judge was asked, or {JUDGED} is not there or damaged; {ASK}.", "gap")]
    rows = content.get("rows")
    if not isinstance(rows, list) or not rows or not all(map(_complete, rows)) or not content.get("judge"):
        return [Text(f"{JUDGED} has no rows of a judge; {ASK}.", "gap")]
    header: list[str | Cell] = ["answers", "questions", "empty"]
    header += [*(Cell(f"{name}{SPACE}{UP}") for name in SHARES), "kappa", "unparsable", "no reply"]
    lines: list[list[str | Cell]] = [
        [
            _answers(results, str(row["name"])),
            str(row["n"]),
            str(row["failed_answers"]),
            *(number(row[key]) for key in SHARES),
            number(row["kappa"]),
            str(row["unparsable"]),
            str(row["failed_verdicts"]),
        ]
        for row in rows
    ]
    if len(rows) > 1:
        means = [number(sum(row[key] for row in rows) / len(rows), strong=True) for key in SHARES]
        sums = {key: str(sum(row[key] for row in rows)) for key in COUNTS}
        counts = [sums["n"], sums["failed_answers"]]
        missing = [sums["unparsable"], sums["failed_verdicts"]]
        lines.append([Cell("all", strong=True), *counts, *means, MISSING, *missing])
    caption = (
        f"Right answers by exact match, by normalised match and by the judge {content['judge']}, percent; "
        "how often judge and exact match agree, percent, and Cohen's kappa of both. In the last row means "
        "over the files, and sums of counts. Empty answers, verdicts that cannot be read and questions "
        "without a reply count as wrong."
    )
    lost = sum(row["unparsable"] + row["failed_verdicts"] for row in rows)
    blocks: list[Block] = [table(caption, header, lines)]
    blocks.append(
        Text(
            f"Judge: {content['judge']}. {lost} of {sum(row['n'] for row in rows)} answers have no usable "
            "verdict. Another judge is another metric; published numbers are exact match.",
            "key",
        )
    )
    if _stale(results, rows):
        blocks.append(
            Text(f"{JUDGED} is about other answers than the results files have: judge again.", "gap")
        )
    return blocks


def _stale(results: Results, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a results file of the first seed has not as many questions, or right ones, as its row."""
    benchmark = results.questions.benchmark
    names = [task.results_file for task in benchmark.tasks] if benchmark else []
    found = dict(zip(names, results.answers, strict=False))  # either may be empty
    for row in rows:
        file = PurePath(row["name"])
        answers = found.get(file.name)
        if answers is None or file.parent.name.startswith("seed_"):
            continue
        right = sum(complete(answer) and is_right(answer) for answer in answers)
        if len(answers) != row["n"] or abs(100 * right / max(len(answers), 1) - row["exact"]) > 1e-6:
            return True
    return False


def _complete(row: Any) -> bool:
    """Whether a row has everything that is shown; kappa may be null, where chance alone agrees fully."""
    if not isinstance(row, Mapping) or not isinstance(row.get("name"), str) or "kappa" not in row:
        return False
    numbers = [row.get(key) for key in (*SHARES, *COUNTS)] + [row["kappa"] or 0]
    return all(isinstance(value, int | float) for value in numbers)


def _answers(results: Results, path: str) -> Cell:
    """The task of a results file by its name, with the folder where it is that of a further seed."""
    file = PurePath(path)
    benchmark = results.questions.benchmark
    tasks = benchmark.tasks if benchmark else ()
    named = {task.results_file: task.name for task in tasks}
    folder = file.parent.name
    return Cell(named.get(file.name, file.name), note=folder if folder.startswith("seed_") else "")
