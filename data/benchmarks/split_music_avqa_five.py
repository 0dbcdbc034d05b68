"""Split-MUSIC-AVQA by question type over all questions, those about sound or picture alone too.

Known counts: version 1 of the annotations, counted.
"""

from __future__ import annotations

from data.benchmarks.music_avqa import FILES, KINDS, make_parser
from data.benchmarks.recipe import Recipe, TaskPlan


def choose(modality: str, kind: str) -> str:
    """The question type."""
    return kind


RECIPE = Recipe(
    title="Split-MUSIC-AVQA-5",
    tasks=tuple(TaskPlan(kind, kind) for kind in KINDS),
    parse=make_parser(choose),
    id_key="question_id",
    whole_files=FILES,
    known={"val": (1457, 449, 863, 609, 320), "test": (2915, 894, 1736, 1219, 638)},
)
