"""The report of an evaluation: summary.json, and made from it alone summary.md and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.files import write_bytes_atomic, write_json_atomic, write_sums
from evaluation.pictures import draw_pictures
from evaluation.summary import MethodResult, build_summary
from evaluation.tables import format_summary, results_markdown, summary_to_markdown

__all__ = [
    "MethodResult",
    "build_summary",
    "format_summary",
    "results_markdown",
    "summary_to_markdown",
    "write_report",
]


def write_report(
    out_dir: Path,
    benchmark_name: str,
    task_names: Sequence[str],
    seeds: Sequence[int],
    methods: Sequence[MethodResult],
    provenance: Mapping[str, Any],
    task_ids: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Write summary.json, summary.md and the pictures into out_dir and return the summary; last SHA256SUMS of
    these and of the results files, which tells a finished report from one that was damaged since.

    Raises ValueError as build_summary does, before anything is written.
    """
    summary = build_summary(benchmark_name, task_names, seeds, methods, provenance, task_ids)
    write_json_atomic(out_dir / "summary.json", summary)
    pictures = draw_pictures(summary, out_dir)
    markdown = summary_to_markdown(summary, pictures=[path.name for path in pictures])
    write_bytes_atomic(out_dir / "summary.md", markdown.encode())
    answers = [*out_dir.glob("*_results.json"), *out_dir.glob("seed_*/*_results.json")]
    write_sums(out_dir, [out_dir / "summary.json", out_dir / "summary.md", *pictures, *answers])
    return summary
