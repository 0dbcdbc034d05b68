"""The measuring tools of the parity tests: what counts as read, as recorded and as close."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.parity.recorded import FEATURES, LOGITS, Notes, Recorded, RecordedSet, recorded_names

ROWS = torch.arange(40.0).view(20, 2) + 1


def test_only_reading_is_noted() -> None:
    notes = Notes()
    recorded = Recorded({"a": 1, "b": {"c": [2], "d": 3}}, "file.json", notes)
    assert "a" in recorded and list(recorded["b"]) == ["c", "d"] and recorded.has("a")
    assert not notes.read
    assert recorded["b"]["c"] == [2] and recorded.get("a") == 1
    assert notes.read == {"file.json/a", "file.json/b/c"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("x", ROWS), ("x", ROWS.mean(0)), ("x_stride8", ROWS[::8]), ("x_posmean", ROWS.mean(0))],
)
def test_every_form_is_compared(key: str, value: torch.Tensor) -> None:
    notes = Notes()
    assert Recorded({key: value}, "file", notes).compare("x", ROWS) == 1
    assert notes.read == {f"file/{key}"} and list(notes.worst.values()) == [0.0]
    with pytest.raises(AssertionError, match=f"file/{key}"):
        Recorded({key: value * 1.001}, "file", notes).compare("x", ROWS)


def test_nothing_recorded_is_nothing_compared() -> None:
    assert Recorded({"y": ROWS}, "file", Notes()).compare("x", ROWS) == 0


def test_close() -> None:
    notes = Notes()
    notes.close(torch.tensor([1e4 + 0.5]), torch.tensor([1e4]), FEATURES)
    for ours, recorded, tolerance in (
        (torch.tensor([1e4 + 0.5]), torch.tensor([1e4]), LOGITS),
        (torch.tensor([float("nan")]), torch.tensor([1.0]), FEATURES),
        (torch.ones(1, 2), torch.ones(2), FEATURES),
    ):
        with pytest.raises(AssertionError):
            notes.close(ours, recorded, tolerance)
    assert notes.worst == {f"{FEATURES.kind}, at most 1e-04": pytest.approx(5e-5)}
    other = Notes(worst={"losses": 1.0})
    other.merge(["file/x"], notes.worst)
    assert other.read == {"file/x"} and len(other.worst) == 2


def test_names_of_a_set(tmp_path: Path) -> None:
    for name in ("expected", "experts", "anchors"):
        (tmp_path / name).mkdir()
    for name in ("experts/expert_task_4.pt", "anchors/anchor_task_0.pt", "expected/unknown.bin"):
        (tmp_path / name).touch()
    save_file({"x": ROWS}, tmp_path / "expected" / "a.safetensors")
    (tmp_path / "expected" / "training.json").write_text(json.dumps({"note": "", "loss": [1], "n": {"k": 2}}))
    notes = Notes()
    found = RecordedSet(tmp_path, notes)
    assert list(found.inputs("experts")) == [4]
    assert torch.equal(found.file("a.safetensors")["x"], ROWS)
    assert recorded_names(tmp_path) - notes.read == {
        "anchors/anchor_task_0.pt",
        "unknown.bin",
        "training.json/loss",
        "training.json/n/k",
    }
