"""Tables of multi-task results in the columns of the paper, made from result.json files alone.

Numbers are means over seeds, with the sample standard deviation where there are several. delta-m is taken
seed by seed against the baseline's run of the same seed:

    delta_m = 100 / T sum_t 1 / M_t sum_j s_tj (M_tj - B_tj) / B_tj, s_tj = 1 where higher is better, else -1

so positive means better than the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.report.plain_formats import escape_latex, escape_markdown
from evaluation.scoring.dense import HIGHER_IS_BETTER, delta_m
from evaluation.tables import MISSING, Table, to_markdown

FORMULA = (
    "delta-m = 100 / T sum_t 1 / M_t sum_j s_tj (M_tj - B_tj) / B_tj in percent, s_tj = 1 where higher is "
    "better, else -1; positive = better than the baseline B"
)
PERCENT = ("mIoU", "pixAcc", "<11.25", "<22.5", "<30")  # stored 0 to 1, printed in percent
ARROWS = {True: "up", False: "down"}
Results = Mapping[str, Sequence[Mapping[str, Any]]]  # row -> results of its seeds


def summarise(results: Results, baseline: str) -> dict[str, Any]:
    """Row -> column -> mean and spread; what the tables and the JSON file show.

    Raises:
        ValueError: no such baseline, or a row without a run for one of the baseline's seeds.
    """
    if baseline not in results:
        raise ValueError(f"baseline {baseline!r}; expected one of {', '.join(results)}")
    base = {run["config"]["seed"]: run["test"] for run in results[baseline]}
    rows = {}
    for name, runs in results.items():
        seeds = [run["config"]["seed"] for run in runs]
        if set(seeds) != set(base):
            raise ValueError(f"{name}: seeds {sorted(seeds)}, the baseline has {sorted(base)}; run the rest")
        columns = {
            f"{task} {metric}": spread([_printed(metric, run["test"][task][metric]) for run in runs])
            for task, metrics in runs[0]["test"].items()
            for metric in metrics
        }
        columns["delta-m"] = spread([gain(run["test"], base[run["config"]["seed"]]) for run in runs])
        columns["GFLOPs"] = spread([run["flops"] / 1e9 for run in runs])
        columns["params (M)"] = spread([run["parameters"] / 1e6 for run in runs])
        rows[name] = {"seeds": sorted(seeds), "columns": columns}
    return {"baseline": baseline, "formula": FORMULA, "rows": rows}


def gain(scores: Mapping[str, Any], base: Mapping[str, Any]) -> float:
    """delta-m; NaN, printed as -, where a score is not defined, or a baseline score is 0, so that no share of
    it can be taken.
    """
    values = [value for metrics in base.values() for value in metrics.values()]
    mine = [value for metrics in scores.values() for value in metrics.values()]
    if 0 in values or None in values or None in mine:
        return float("nan")
    return delta_m(scores, base)


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation (0 for one value); None where a value is not defined."""
    if any(math.isnan(value) for value in values):
        return {"mean": None, "std": None}
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": std}


def as_table(summary: Mapping[str, Any]) -> Table:
    """One row a method."""
    rows = summary["rows"]
    columns = list(next(iter(rows.values()))["columns"])
    table = [["method", *map(_heading, columns)]]
    for name, row in rows.items():
        cells = [_cell(column, row["columns"][column]) for column in columns]
        if name == summary["baseline"]:
            cells[columns.index("delta-m")] = MISSING
        table.append([name, *cells])
    return table


def markdown(summary: Mapping[str, Any]) -> str:
    """The table with its formula, in Markdown."""
    header, *rows = as_table(summary)
    table = [header, *([escape_markdown(name), *cells] for name, *cells in rows)]
    return f"{to_markdown(table)}\n\n{_legend(summary)}\n"


def latex(summary: Mapping[str, Any]) -> str:
    """The table as LaTeX `tabular`."""
    header, *rows = [[_escape(cell) for cell in row] for row in as_table(summary)]
    lines = [" & ".join(row) + r" \\" for row in (header, *rows)]
    body = "\n".join([r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"])
    legend = _escape(_legend(summary))
    return f"% {legend}\n\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}\n{body}\n\\end{{tabular}}\n"


def _legend(summary: Mapping[str, Any]) -> str:
    seeds = next(iter(summary["rows"].values()))["seeds"]
    return f"Seeds {', '.join(map(str, seeds))}; baseline {summary['baseline']}; {summary['formula']}"


def _printed(metric: str, value: float | None) -> float:
    if value is None:
        return float("nan")
    return 100 * value if metric in PERCENT else value


def _heading(column: str) -> str:
    task, _, metric = column.partition(" ")
    if task not in HIGHER_IS_BETTER:
        return column
    return f"{metric} ({ARROWS[HIGHER_IS_BETTER[task][metric]]})"


def _cell(column: str, value: Mapping[str, float | None]) -> str:
    if value["mean"] is None:
        return MISSING
    digits = 4 if "err" in column else 2
    text = f"{value['mean']:.{digits}f}"
    return text + (f" +- {value['std']:.{digits}f}" if value["std"] else "")


def _escape(text: str) -> str:
    return escape_latex(text).replace("+-", r"$\pm$")
