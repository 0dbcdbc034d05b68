"""Split-MUSIC-AVQA by question type over all questions, those about sound or picture alone too.

Known counts: version 1 of the annotations, counted.
"""

from __future__ import annotations

from data.benchmarks.music_avqa import BY_KIND, music_recipe


def choose(modality: str, kind: str) -> str:
    """The question type."""
    return kind


RECIPE = music_recipe(
    title="Split-MUSIC-AVQA-5",
    tasks=BY_KIND,
    choose=choose,
    known={"val": (1457, 449, 863, 609, 320), "test": (2915, 894, 1736, 1219, 638)},
)
