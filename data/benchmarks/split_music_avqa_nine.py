"""Split-MUSIC-AVQA by both type fields: nine tasks, the pairs of modality and question type that occur.

Known counts: version 1 of the annotations, counted.
"""

from __future__ import annotations

from data.benchmarks.music_avqa import music_recipe
from data.benchmarks.recipe import TaskPlan

PAIRS = (
    ("Audio", "Counting"),
    ("Audio", "Comparative"),
    ("Visual", "Counting"),
    ("Visual", "Location"),
    ("Audio-Visual", "Counting"),
    ("Audio-Visual", "Existential"),
    ("Audio-Visual", "Location"),
    ("Audio-Visual", "Comparative"),
    ("Audio-Visual", "Temporal"),
)


def choose(modality: str, kind: str) -> str:
    """Both fields as one key. Raises ValueError for a pair that does not occur."""
    if (modality, kind) not in PAIRS:
        raise ValueError(f"type: got {modality} {kind}, which is none of the nine pairs; correct it")
    return f"{modality}_{kind}"


RECIPE = music_recipe(
    title="Split-MUSIC-AVQA-9",
    tasks=tuple(TaskPlan(f"{modality}_{kind}", f"{modality} {kind}") for modality, kind in PAIRS),
    choose=choose,
    known={
        "val": (449, 123, 536, 510, 472, 449, 353, 486, 320),
        "test": (894, 247, 1072, 1024, 949, 894, 712, 972, 638),
    },
)
