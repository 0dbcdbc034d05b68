"""The chapter's first parts: results in the paper's layout, tests, accuracy matrices, forgetting curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.report.charts import NAMED_STAGES, curves, legend
from evaluation.report.document import (
    DOWN,
    MISSING,
    UP,
    Block,
    Cell,
    Figure,
    Section,
    Side,
    Table,
    Text,
    table,
)
from evaluation.report.published import PUBLISHED, comparable
from evaluation.report.reading import Results
from evaluation.summary import METHOD_TITLES, TESTED
from evaluation.tables import COLUMNS, format_interval, format_number, has_stages

NORMALISED = "MA_normalised"
BETTER = {
    "MA": UP,
    "AF": DOWN,
    "Avg": UP,
    "FM": DOWN,
    "BWT": UP,
    "FWT": UP,
    "routing_accuracy": UP,
    NORMALISED: UP,
}
SPACE = "\u00a0"  # that is not broken
METRICS = ("MA", "AF", "Avg", "FM", "BWT", "FWT", "routing_accuracy")
SIGNIFICANT = 0.01
BOUNDS = {"oracle": "given the task", "joint": "sees all tasks at once"}  # what could be reached at most


def title(name: str) -> str:
    """A method as readers know it; one without a title by its own name."""
    return METHOD_TITLES.get(name, name.replace("_", " "))


def short(name: str) -> str:
    """A method's title without what stands in brackets."""
    return title(name).partition(" (")[0]


def method_cell(name: str, note: str = "", strong: bool = False) -> Cell:
    """A method's title as a cell: what stands in brackets, and a note, as the smaller second line."""
    short, _, more = title(name).partition(" (")
    return Cell(short, note="; ".join(filter(None, (more.removesuffix(")"), note))), strong=strong)


def number(value: float | None, std: float | None = None, *, count: bool = False, **more: Any) -> Cell:
    """A cell of a measured number."""
    text = MISSING if value is None else format_number(value, count=count)
    return Cell(text, f"{std:.2f}" if std else "", **more)


def main_table(results: Results) -> Table:
    """A row for each method: final accuracy on each task, then the metrics, then the published ones."""
    known = comparable(results.summary)
    header: list[str | Cell] = ["method", *results.tasks]
    header += [Cell(f"{COLUMNS[name]}{SPACE}{BETTER[name]}") for name in METRICS] + ["failed"]
    header += [Cell("published MA"), Cell("published AF")] if known else []
    rows = [_row(name, entry) for name, entry in results.methods.items()]
    if known:
        for row, name in zip(rows, results.methods, strict=True):
            there = name == known.method
            row += [number(known.MA if there else None), number(known.AF if there else None)]
    seeds = len(results.summary["seeds"])
    spread = ", mean and standard deviation over the seeds" if seeds > 1 else ""
    caption = (
        f"{results.summary['benchmark']}: accuracy on each task after the last one, and the metrics of "
        f"continual learning, percent{spread}; in brackets 95 % intervals over test questions. "
        f"{results.protocol}"
    )
    return table(caption, header, rows)


def _row(name: str, entry: Mapping[str, Any]) -> list[Cell]:
    strong = name == TESTED
    std = entry.get("matrix_std") or [[None] * len(entry["matrix"])]
    cells = [method_cell(name, entry.get("note", ""), strong)]
    cells += [
        number(value, deviation, strong=strong)
        for value, deviation in zip(entry["matrix"][-1], std[-1], strict=True)
    ]
    for metric in METRICS:
        interval = entry.get(f"{metric}_interval")
        note = format_interval(interval) if interval else ""
        cells.append(number(entry.get(metric), entry.get(f"{metric}_std"), note=note, strong=strong))
    return [*cells, number(entry.get("n_failed"), entry.get("n_failed_std"), count=True, strong=strong)]


def results_section(results: Results) -> Section:
    """The table, what is published, and where ours is not ahead."""
    blocks: list[Block] = [main_table(results)]
    if absent := results.summary.get("not_run"):
        named = [f"{short(name)} ({why})" if why else short(name) for name, why in absent.items()]
        blocks.append(Text(f"Not run: {'; '.join(named)}.", "gap"))
    blocks.append(_published(results))
    tested = tests_table(results)
    if tested is None:
        blocks.append(Text("No paired tests: the summary has no answers of single questions.", "gap"))
    else:
        blocks += [tested, *(Text(text, "key") for text in ahead(results))]
    return Section("results", "Results", tuple(blocks))


def _published(results: Results) -> Text:
    known = comparable(results.summary)
    if known:
        return Text(
            f"Published: {known.source} ({known.benchmark}). It is the same split; the backbone and the "
            "settings of the rows measured here stand under Provenance."
        )
    others = "; ".join(f"{item.benchmark} MA {item.MA:.2f}, AF {item.AF:.2f}" for item in PUBLISHED)
    return Text(
        f"Published numbers are of other benchmarks and not comparable with this one: {others} "
        f"({PUBLISHED[0].source}). They get a column of their own where tasks and test questions are theirs."
    )


def tests_table(results: Results) -> Table | None:
    """Ours against every other method on the same questions; None for a summary without tests."""
    tests = results.summary.get("tests") or {}
    rows: list[list[str | Cell]] = [
        [
            method_cell(name),
            Cell(f"{test['MA_difference']:+.2f}", note=format_interval(test["MA_difference_interval"])),
            _p(test["p"]),
            Cell(_p(test["p_holm"]), strong=test["p_holm"] < SIGNIFICANT),
        ]
        for name, test in tests.items()
    ]
    caption = (
        f"MA of {title(TESTED)} minus that of each other method, percent points, with 95 % interval; "
        "two-sided paired sign-flip test on the same questions, p also with Holm's correction for all the "
        "rows."
    )
    header = ["against", "difference in MA", "p", "p (Holm)"]
    return table(caption, header, rows) if rows else None


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.0001 else f"{value:.1e}"


def ahead(results: Results) -> list[str]:
    """Two sentences: what ours is ahead of, and what it is not ahead of."""
    tests = results.summary.get("tests") or {}
    sure = {
        name: test
        for name, test in tests.items()
        if test["MA_difference"] > 0 and test["p_holm"] < SIGNIFICANT
    }
    behind = {name: test for name, test in tests.items() if name not in sure}
    texts = []
    if sure:
        texts.append(
            f"{_capital(title(TESTED))} is ahead (p < {SIGNIFICANT} after Holm's correction) of: "
            f"{_list(sure)}."
        )
    texts.append(
        f"Where ours is not ahead: {_list(behind) if behind else 'nowhere, among the methods that ran'}."
    )
    bounds = [f"{short(name)} ({why})" for name, why in BOUNDS.items() if name in behind]
    if bounds:
        texts[-1] += f" Bounds on what is possible among these: {', '.join(bounds)}."
    return texts


def _list(tests: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{short(name)} ({test['MA_difference']:+.2f} points, p = {_p(test['p_holm'])})"
        for name, test in tests.items()
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def matrices_section(results: Results) -> Section:
    """A coloured table for each method that was measured after every task."""
    tables = tuple(_matrix(results, name) for name in staged(results))
    text = Text(
        "Rows are stages (after which task), columns the tasks asked about; the cell right of the diagonal "
        "is the next task before it is learned. The stronger the colour, the better. In brackets, on the "
        "page and in Markdown, 95 % bootstrap intervals over test questions. Methods without stages stand in "
        "the table of results."
    )
    return Section("matrices", "Accuracy matrices", (text, Side(tables)) if tables else (text,))


def staged(results: Results) -> list[str]:
    """Methods that were measured after every task."""
    return [name for name, entry in results.methods.items() if has_stages(entry["matrix"])]


def _matrix(results: Results, name: str) -> Table:
    entry = results.methods[name]
    unknown = [[None] * len(results.tasks)] * len(results.tasks)
    stages = zip(results.tasks, entry["matrix"], entry.get("matrix_interval") or unknown, strict=True)
    rows = [
        [Cell(task), *(_shaded(*pair) for pair in zip(values, intervals, strict=True))]
        for task, values, intervals in stages
    ]
    return table(f"{title(name)}, percent", ["after", *results.tasks], rows, compact=True)


def _shaded(value: float | None, interval: Sequence[float] | None) -> Cell:
    """A cell of an accuracy matrix; empty where nothing was measured."""
    if value is None:
        return Cell("")
    note = f"[{interval[0]:.1f}, {interval[1]:.1f}]" if interval else ""
    return Cell(f"{value:.1f}", note=note, heat=value / 100)


def forgetting_section(results: Results) -> Section:
    """The mean over the tasks learned so far, and every task's accuracy since it was learned."""
    tasks, names = results.tasks, staged(results)
    if not names or len(tasks) < 2:
        return Section(
            "forgetting", "Forgetting", (Text("One task or no stages: nothing to forget.", "gap"),)
        )
    names.sort(key=lambda name: name == TESTED)  # ours drawn last, on top of the others
    others = [name for name in results.methods if name != TESTED]
    styles = {name: style for style, name in enumerate([TESTED, *others])}
    matrices = {name: results.methods[name]["matrix"] for name in names}
    lines = {styles[name]: _seen(matrix) for name, matrix in matrices.items()}
    pictures = [curves("all tasks so far", tasks, lines)]
    for i, task in enumerate(tasks[:-1]):
        lines = {
            styles[name]: [None] * i + [row[i] for row in matrix[i:]] for name, matrix in matrices.items()
        }
        pictures.append(curves(task, tasks, lines))
    caption = (
        "Accuracy in percent on the task named above each picture, after learning the tasks below it; "
        "first the mean over all tasks learned so far. A curve that falls is forgetting. Ours is the thick "
        "line."
    )
    if len(tasks) > NAMED_STAGES:
        caption += " Stages are numbered in the order of the tasks."
    named = legend({style: title(name) for name, style in styles.items() if name in names})
    return Section("forgetting", "Forgetting", (Figure(tuple(pictures), caption, named),))


def _seen(matrix: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Mean over the tasks learned so far, after each stage; None where one of them was not measured."""
    means: list[float | None] = []
    for stage, row in enumerate(matrix):
        known = [value for value in row[: stage + 1] if value is not None]
        means.append(sum(known) / len(known) if len(known) == stage + 1 else None)
    return means
