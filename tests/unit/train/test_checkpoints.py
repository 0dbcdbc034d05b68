"""A checkpoint folder belongs to one run, and its state comes back as it was."""

from pathlib import Path

import pytest
import torch

from train.checkpoints import CheckpointFolder


def test_state_comes_back_and_logs_stay(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "ckpt", {"lr": 0.1, "layers": (0, 2)})
    assert folder.claim() is False
    folder.save({"step": 3, "expert": {"a": torch.arange(3.0)}})
    (tmp_path / "ckpt" / "train_log.jsonl").write_text("{}\n")
    again = CheckpointFolder(tmp_path / "ckpt", {"lr": 0.1, "layers": [0, 2]})
    assert again.claim() is True
    assert again.load()["step"] == 3
    again.remove()
    assert [path.name for path in (tmp_path / "ckpt").iterdir()] == ["train_log.jsonl"]


def test_a_folder_of_other_settings_is_refused_with_what_differs(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, {"config": {"lr": 0.1}, "seed": 0}).claim()
    with pytest.raises(ValueError, match=r"config\.lr: was 0\.1, is 0\.2") as caught:
        CheckpointFolder(tmp_path, {"config": {"lr": 0.2}, "seed": 0}).claim()
    assert "--overwrite" in str(caught.value) and "seed" not in str(caught.value)


def test_a_damaged_state_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, {})
    folder.claim()
    folder.save({"step": 1})
    content = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="delete"):
        folder.load()


class Payload:
    """What a hostile file would carry."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code ran",))


def test_a_state_that_carries_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = CheckpointFolder(tmp_path, {})
    folder.claim()
    torch.save({"step": Payload()}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="damaged"):
        folder.load()
    assert "code ran" not in capsys.readouterr().out


def test_a_state_that_is_not_finite_does_not_replace_a_good_one(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, {})
    folder.save({"step": 1, "learned": {"a": torch.ones(2)}})
    bad = {"step": 2, "optimizer": {"state": {0: [torch.tensor([1.0, float("inf")])]}}}
    with pytest.raises(ValueError, match=r"state\.optimizer\.state\.0\.0 has values that are not finite"):
        folder.save(bad)
    assert folder.load()["step"] == 1
