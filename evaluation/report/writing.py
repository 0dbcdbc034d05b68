"""From results folders to the report's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.files import require_writable, write_bytes_atomic
from evaluation.report.build import EXAMPLES, build_document
from evaluation.report.page import to_html
from evaluation.report.plain_formats import to_latex, to_markdown
from evaluation.report.reading import read_all_results


def write_pages(
    results: Sequence[Path], output: Path, examples: int = EXAMPLES, media: bool = True
) -> list[Path]:
    """Write report.html, report.md and report.tex into `output`; returns their paths.

    Raises ValueError with every fault of the results before anything is written, see read_all_results.
    """
    found = read_all_results(results)
    require_writable(output)
    document = build_document(found, examples, media)
    texts = {"html": to_html(document), "md": to_markdown(document), "tex": to_latex(document)}
    paths = [output / f"report.{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_bytes_atomic(path, text.encode("utf-8", errors="replace"))
    return paths
