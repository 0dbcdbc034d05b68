"""Made-up annotations in the shapes of the official files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes items as a JSON file of this name in a folder of annotations; returns the folder."""

    def to_file(name: str, *items: Any) -> Path:
        folder = tmp_path / "annotations"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(items))
        return folder

    return to_file


def avqa(number: int, kind: str, **other: Any) -> dict[str, Any]:
    """A question as AVQA's authors give it out."""
    return {
        "id": number,
        "video_name": f"abcdefghij{number % 10}_000030",
        "video_id": 10 * number,
        "question_text": f"Question {number} about it?",
        "multi_choice": ["dog", "cat", "bird", "train"],
        "answer": number % 4,
        "question_relation": "Both",
        "question_type": kind,
        **other,
    }


def avqacl(number: int, kind: str, label: str) -> dict[str, Any]:
    """A question as in the files per task of AVQACL."""
    item = avqa(
        number, kind, answer="highway", label=label, video_name=f"abcdefghij{number % 10}_trimmed.mp4"
    )
    del item["multi_choice"]
    return item


def published(number: int, question: str = "Where is it?") -> dict[str, Any]:
    """A sample as published with AVQACL-MoE."""
    clip = f"/path/to/dataset_QA/AVQA_dataset/frames_converted_2/abcdefghij{number}"
    return {
        "id": str(number),
        "conversations": [
            {"from": "human", "value": f"<video>\n<audio>\n{question}"},
            {"from": "gpt", "value": "street "},
        ],
        "video": [f"{clip}/frame_{frame:03d}.jpg" for frame in range(1, 9)],
        "voice": [f"{clip}/audio.wav"],
    }


def music(number: int, modality: str, kind: str, **other: Any) -> dict[str, Any]:
    """A question of MUSIC-AVQA, version 1."""
    return {
        "video_id": f"{number:08d}",
        "question_id": number,
        "type": json.dumps([modality, kind]),
        "question_content": "Is the <Object> on the <LR> louder than the <Object>?",
        "templ_values": '["flute", "left", "acoustic_guitar"]',
        "question_deleted": 0,
        "anser": "yes",
        **other,
    }
