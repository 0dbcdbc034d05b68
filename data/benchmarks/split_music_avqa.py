"""Split-MUSIC-AVQA as published: the audio-visual questions of MUSIC-AVQA, one task per question type.

The published tasks leave out questions about sound alone or picture alone, and 5 of the 4165 test questions
that are left, for an unstated reason: from version 1 of the authors' own files, counts are larger by those.

Source: AVQACL (CVPR 2025), whose files SPLIT_TASK.json are read too.
"""

from __future__ import annotations

from data.benchmarks.music_avqa import BY_KIND, music_recipe


def choose(modality: str, kind: str) -> str | None:
    """The question type of audio-visual questions."""
    return kind if modality == "Audio-Visual" else None


RECIPE = music_recipe(
    title="Split-MUSIC-AVQA",
    tasks=BY_KIND,
    choose=choose,
    known={"test": (947, 893, 711, 972, 637)},
)
