"""When an expert is taken over instead of being trained a second time."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from data.files import sha256_file
from train.run_cell import _same_training, _training_key

IDENTITY: dict[str, Any] = {
    "method": "anchor_moe",
    "task_id": 1,
    "config": {"epochs": 2},
    "data": {"a.json": "1"},
}
START = {"x.lora_A.weight": torch.ones(2, 3)}


def test_the_key_is_of_what_decides_the_weights() -> None:
    key = _training_key(IDENTITY | {"sources": {"expert_task_0.pt": "1"}}, START)
    assert key == _training_key(IDENTITY | {"method": "sequential", "sources": {}}, {**START})
    others = [
        (IDENTITY | {"task_id": 2}, START),
        (IDENTITY | {"config": {"epochs": 3}}, START),
        (IDENTITY | {"data": {"a.json": "2"}}, START),
        (IDENTITY, None),
        (IDENTITY, {"x.lora_A.weight": torch.full((2, 3), 2.0)}),
        (IDENTITY, {"y.lora_A.weight": torch.ones(2, 3)}),
    ]
    assert key not in [_training_key(*other) for other in others]


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    """A stored expert with its record."""
    path = tmp_path / "expert_task_1.pt"
    path.write_bytes(b"weights")
    record = {"training": {"steps": 3}, "training_key": "key", "files": {path.name: sha256_file(path)}}
    path.with_suffix(".run.json").write_text(json.dumps(record))
    return path


def test_the_same_training_is_taken(twin: Path) -> None:
    assert _same_training(twin, "key") == {"steps": 3, "taken_from": str(twin)}


@pytest.mark.parametrize("fault", ["another key", "changed", "no file", "no record", "older record"])
def test_anything_else_is_not(twin: Path, fault: str) -> None:
    record = twin.with_suffix(".run.json")
    if fault == "changed":
        twin.write_bytes(b"weightz")
    elif fault == "no file":
        twin.unlink()
    elif fault == "no record":
        record.unlink()
    elif fault == "older record":
        content = json.loads(record.read_text())
        del content["training_key"]
        record.write_text(json.dumps(content))
    assert _same_training(twin, "another" if fault == "another key" else "key") is None
