"""Tables of a summary: Markdown for files, plain text for the terminal; both from summary.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.summary import METHOD_TITLES, TESTED, USUAL

COLUMNS: dict[str, str] = {
    "MA": "MA",
    "AF": "AF",
    "Avg": "Avg",
    "FM": "FM",
    "BWT": "BWT",
    "FWT": "FWT",
    "routing_accuracy": "routing",
    "n": "n",
    "n_failed": "failed",
}
COUNTS = ("n", "n_failed")
NOT_RUN = "not run"
MISSING = "-"

Table = list[list[str]]  # the header, then the rows


def format_number(value: float | None, std: float | None = None, *, count: bool = False) -> str:
    """Percent with two decimals, and the deviation if there is one; counts without decimals where whole."""
    if value is None:
        return MISSING
    digits = 0 if count and float(value).is_integer() else 2
    return f"{value:.{digits}f}" + (f" +- {std:.2f}" if std else "")


def _cell(entry: Mapping[str, Any], name: str) -> str:
    return format_number(entry.get(name), entry.get(f"{name}_std"), count=name in COUNTS)


def has_stages(matrix: Sequence[Sequence[float | None]]) -> bool:
    """Whether more than the last row of an accuracy matrix was measured."""
    return any(cell is not None for row in matrix[:-1] for cell in row)


def metric_table(summary: Mapping[str, Any]) -> Table:
    """One row a method, the metrics as columns; a method without results says so."""
    table = [["method", *COLUMNS.values()]]
    not_run = summary.get("not_run", USUAL)
    for name, title in METHOD_TITLES.items():
        entry = summary["methods"].get(name)
        if entry is None and name not in not_run:
            continue
        if entry is None:
            table.append([title, NOT_RUN, *[""] * (len(COLUMNS) - 1)])
        else:
            table.append([title, *(_cell(entry, column) for column in COLUMNS)])
    return table


def format_interval(interval: Sequence[float] | None) -> str:
    """Low and high in brackets."""
    return MISSING if interval is None else f"[{interval[0]:.2f}, {interval[1]:.2f}]"


def statistics_table(summary: Mapping[str, Any]) -> Table | None:
    """Intervals of every method and its test against anchor_moe; None for a summary without intervals."""
    tests = summary.get("tests", {})
    rows = []
    for name, entry in summary["methods"].items():
        if not entry.get("MA_interval"):
            continue
        row = [METHOD_TITLES[name]]
        for metric in ("MA", "AF"):
            row += [format_number(entry[metric]), format_interval(entry[f"{metric}_interval"])]
        row.append(format_number(entry.get("MA_normalised")))
        test = tests.get(name)
        row += (
            [
                f"{test['MA_difference']:+.2f}",
                format_interval(test["MA_difference_interval"]),
                f"{test['p']:.2g}",
                f"{test['p_holm']:.2g}",
            ]
            if test
            else [MISSING] * 4
        )
        rows.append(row)
    ahead = f"MA of {METHOD_TITLES[TESTED]} minus this"
    measured = ["MA", "95 % interval", "AF", "95 % interval", "MA normalised"]
    header = ["method", *measured, ahead, "95 % interval", "p", "p (Holm)"]
    return [header, *rows] if rows else None


def matrix_table(summary: Mapping[str, Any], name: str, *, intervals: bool = False) -> Table:
    """The accuracy matrix of a method: a row for each stage that was measured, a column for each task; with
    `intervals` each cell with its own, where the summary has them."""
    tasks, entry = summary["tasks"], summary["methods"][name]
    stages = [f"after {task}" for task in tasks] if has_stages(entry["matrix"]) else ["final"]
    cells = [list(map(format_number, row)) for row in entry["matrix"][-len(stages) :]]
    if intervals and entry.get("matrix_interval"):
        found = entry["matrix_interval"][-len(stages) :]
        for row, known in zip(cells, found, strict=True):
            row[:] = [
                f"{cell} {format_interval(one)}" if one else cell
                for cell, one in zip(row, known, strict=True)
            ]
    return [["", *tasks], *([stage, *row] for stage, row in zip(stages, cells, strict=True))]


def confusion_table(summary: Mapping[str, Any], name: str) -> Table:
    """Samples of each task (rows) sent to each expert (columns), summed over seeds."""
    entry, tasks = summary["methods"][name], summary["tasks"]
    table = [["task \\ sent to", *tasks]]
    table += [[task, *map(str, row)] for task, row in zip(tasks, entry["routing_confusion"], strict=True)]
    if any(entry["routing_abstained"]):
        table[0].append("bare backbone")
        for row, count in zip(table[1:], entry["routing_abstained"], strict=True):
            row.append(str(count))
    return table


def modality_table(summary: Mapping[str, Any], name: str) -> Table:
    """Routing accuracy of each modality alone."""
    modalities = summary["methods"][name]["routing_by_modality"]
    table = [["modality alone", "routing", "n"]]
    return table + [
        [modality, _cell(entry, "accuracy"), str(entry["n"])] for modality, entry in modalities.items()
    ]


def to_markdown(table: Table) -> str:
    """A Markdown table, first column left, the others right aligned."""
    header, *rows = table
    rule = [":--", *["--:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows])


def to_text(table: Table) -> str:
    """The table in columns of equal width, for a terminal."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in table
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _routed_methods(summary: Mapping[str, Any]) -> list[str]:
    """Methods with a confusion matrix worth showing: the oracle is right by definition."""
    return [
        name
        for name, entry in summary["methods"].items()
        if entry.get("routing_confusion") and name != "oracle"
    ]


def _notes(summary: Mapping[str, Any]) -> list[str]:
    """What a reader should know about single rows."""
    ran = {name: entry.get("note", "") for name, entry in summary["methods"].items()}
    notes = [f"{METHOD_TITLES[name]}: {note}" for name, note in ran.items() if note]
    notes += [
        f"{METHOD_TITLES[name]}: {NOT_RUN}: {note}"
        for name, note in summary.get("not_run", {}).items()
        if note
    ]
    gap = summary["methods"].get("anchor_moe", {}).get("oracle_gap")
    notes += [f"oracle gap: {format_number(gap)} points"] if gap is not None else []
    protocol = summary["provenance"].get("protocol")
    return notes + ([f"protocol: {protocol}"] if protocol else [])


def _plain(value: Any) -> str:
    """A value of the provenance in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return " ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


def _heading(summary: Mapping[str, Any]) -> str:
    seeds = ", ".join(map(str, summary["seeds"]))
    spread = ", mean +- standard deviation" if len(summary["seeds"]) > 1 else ""
    return f"{len(summary['tasks'])} tasks ({', '.join(summary['tasks'])}), seeds {seeds}{spread}, percent"


def results_markdown(summary: Mapping[str, Any]) -> str:
    """The table of metrics with the formulas beneath, as in the README."""
    formulas = "\n".join(f"* {name} = `{formula}`" for name, formula in summary["formulas"].items())
    parts = [_heading(summary) + ":", to_markdown(metric_table(summary)), *_notes(summary)]
    legend = (
        "R[k][i]: accuracy on task i after learning task k of T; failed and empty answers count as wrong."
    )
    return "\n\n".join([*parts, f"{legend}\n\n{formulas}"]) + "\n"


def summary_to_markdown(summary: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The whole of summary.md; pictures: file names beside it."""
    parts = [f"# {summary['benchmark']}", results_markdown(summary).rstrip()]
    if table := statistics_table(summary):
        parts += ["## Intervals and tests", to_markdown(table)]
    for name in summary["methods"]:
        matrix = matrix_table(summary, name, intervals=True)
        parts += [f"## Accuracy matrix: {METHOD_TITLES[name]}", to_markdown(matrix)]
    for name in _routed_methods(summary):
        parts += [f"## Routing: {METHOD_TITLES[name]}", to_markdown(confusion_table(summary, name))]
        if summary["methods"][name]["routing_by_modality"]:
            parts.append(to_markdown(modality_table(summary, name)))
    parts += [f"![{picture.rsplit('.', 1)[0].replace('_', ' ')}]({picture})" for picture in pictures]
    if summary["provenance"]:
        lines = [f"* {key}: {_plain(value)}" for key, value in summary["provenance"].items()]
        parts += ["## Provenance", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def format_summary(summary: Mapping[str, Any]) -> str:
    """What is printed at the end of an evaluation: metrics, formulas, accuracy matrices, routing."""
    parts = [
        f"{summary['benchmark']}: {_heading(summary)}",
        to_text(metric_table(summary)),
        "\n".join(_notes(summary)),
    ]
    width = max(map(len, summary["formulas"]))
    parts.append(
        "\n".join(f"{name.ljust(width)} = {formula}" for name, formula in summary["formulas"].items())
    )
    if table := statistics_table(summary):
        parts.append(to_text(table))
    for name in ("anchor_moe", "sequential"):
        if name in summary["methods"]:
            parts.append(f"accuracy matrix, {METHOD_TITLES[name]}:\n" + to_text(matrix_table(summary, name)))
    for name in _routed_methods(summary):
        parts.append(f"routing, {METHOD_TITLES[name]}:\n" + to_text(confusion_table(summary, name)))
        if summary["methods"][name]["routing_by_modality"]:
            parts.append(to_text(modality_table(summary, name)))
    return "\n\n".join(part for part in parts if part)
