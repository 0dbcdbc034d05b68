"""From results to a document: a chapter for each evaluation, then formulas and sources."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.report.document import Cell, Chapter, Document
from evaluation.report.evidence import cost_section, leakage_section, notes_chapter, provenance_section
from evaluation.report.examples import examples_section
from evaluation.report.reading import Results
from evaluation.report.routes import confusion_section, map_section, modality_section
from evaluation.report.scores import forgetting_section, matrices_section, number, results_section
from evaluation.report.scoring import scoring_section
from evaluation.summary import TESTED

EXAMPLES = 24  # on a page


def build_document(found: Sequence[Results], examples: int = EXAMPLES, media: bool = True) -> Document:
    """The report on these evaluations; `examples` are shared out among them."""
    each = [examples // len(found) + (place < examples % len(found)) for place in range(len(found))]
    chapters = [_chapter(results, most, media) for results, most in zip(found, each, strict=True)]
    names = ", ".join(chapter.title for chapter in chapters)
    lead = (
        "Experts picked by the data, without a learned gate and without task labels. Every number stands "
        "in the summary.json of its evaluation; what is missing is said where it would stand."
    )
    return Document(
        f"Continual audio-visual question answering: {names}", lead, (*chapters, notes_chapter(found))
    )


def _chapter(results: Results, examples: int, media: bool) -> Chapter:
    summary = results.summary
    benchmark = str(summary["benchmark"])
    title = benchmark if benchmark == results.name else f"{benchmark} ({results.name})"
    seeds = len(summary["seeds"])
    about = summary["provenance"]
    lead = (
        f"{len(results.tasks)} tasks in this order: {', '.join(results.tasks)}. {seeds} "
        f"seed{'s' * (seeds != 1)}, split {about.get('split', 'test')}. After each task, all tasks so "
        f"far and the next one are asked without task labels. {results.protocol}"
    )
    return Chapter(
        key=f"r-{results.name}",
        title=title,
        lead=lead,
        sections=(
            results_section(results),
            scoring_section(results),
            matrices_section(results),
            forgetting_section(results),
            confusion_section(results),
            modality_section(results),
            map_section(results),
            cost_section(results),
            examples_section(results, examples, media),
            leakage_section(results),
            provenance_section(results),
        ),
        headline=_headline(results),
    )


def _headline(results: Results) -> tuple[tuple[str, Cell, str], ...]:
    entry = results.methods.get(TESTED)
    if entry is None:
        return ()
    named = {
        "MA": "final accuracy, mean over tasks",
        "AF": "average forgetting",
        "routing_accuracy": "sent to their own task's expert",
        "n": "test questions",
    }
    shown = {"routing_accuracy": "routing", "n": "n"}
    return tuple(
        (shown.get(key, key), number(entry.get(key), entry.get(f"{key}_std"), count=key == "n"), text)
        for key, text in named.items()
    )
