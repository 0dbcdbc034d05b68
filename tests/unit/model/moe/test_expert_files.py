"""Expert files: strict, atomic, free of code."""

import errno
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from model.moe.expert_files import ExpertHeader, inspect_expert, read_expert
from model.moe.experts import ExpertBank, ExpertConfig


@pytest.fixture
def saved(bank: ExpertBank, tmp_path: Path) -> Path:
    path = tmp_path / "experts" / "expert_task_1.pt"
    bank.save(1, path)
    return path


def other(bank: ExpertBank, toys: Callable, identity: str | None = "base-1", seed: int = 0) -> ExpertBank:
    return ExpertBank(toys(seed), bank.config, identity)


def test_a_round_trip_keeps_every_bit(bank: ExpertBank, toys: Callable, saved: Path) -> None:
    fresh = other(bank, toys)
    fresh.load(1, saved)
    before, after = bank.state(1), fresh.state(1)
    assert list(before) == list(after) and all(torch.equal(before[key], after[key]) for key in before)
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_equal_experts_are_equal_files(bank: ExpertBank, saved: Path) -> None:
    bank.save(1, saved.with_name("again.pt"))
    assert saved.read_bytes() == saved.with_name("again.pt").read_bytes()


def test_a_file_tells_how_to_read_it(bank: ExpertBank, saved: Path) -> None:
    found = inspect_expert(saved)
    lora = bank.config.kind == "lora"
    assert found.header == ExpertHeader(
        bank.config.kind, 3 if lora else None, 6.0 if lora else None, 1, "base-1"
    )
    assert found.layers == (0, 2) and found.projections == bank.config.projections
    assert found.config == replace(
        bank.config, layers=(0, 2), **({} if lora else {"rank": 16, "alpha": 32.0})
    )


def test_a_file_can_be_read_without_loading_it(bank: ExpertBank, saved: Path) -> None:
    wanted = inspect_expert(saved).header
    whole, mapped = read_expert(saved, wanted), read_expert(saved, wanted, mmap=True)
    assert list(whole) == list(mapped) and all(torch.equal(whole[key], mapped[key]) for key in whole)
    old = saved.with_name("old.pt")
    torch.save(torch.load(saved, weights_only=True), old, _use_new_zipfile_serialization=False)
    assert list(read_expert(old, wanted, mmap=True)) == list(whole), "files that cannot be mapped are loaded"


def test_a_renamed_file_or_another_base_raises(bank: ExpertBank, toys: Callable, saved: Path) -> None:
    with pytest.raises(ValueError, match=r"expert_task_1\.pt: task_id is 1, expected 0"):
        bank.load(0, saved)
    with pytest.raises(ValueError, match="made for base base-1, the backbone loaded is base-2"):
        other(bank, toys, "base-2").load(1, saved)
    assert bank.task_ids == [0, 1, 3]


def test_an_unknown_base_is_said(
    bank: ExpertBank, toys: Callable, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other(bank, toys, None).load(1, saved)
    assert "base unverified" in caplog.text


def test_another_configuration_raises(lora: ExpertBank, toys: Callable, tmp_path: Path) -> None:
    path = tmp_path / "e.pt"
    lora.save(1, path)
    wrong = {
        "rank is 3, expected 4": ExpertConfig(rank=4, alpha=6.0),
        "alpha is 6.0, expected 8.0": ExpertConfig(rank=3, alpha=8.0),
        "kind is 'lora', expected 'mlp'": ExpertConfig(kind="mlp"),
        "12 keys missing": ExpertConfig(rank=3, alpha=6.0, layers="all"),
        "8 unexpected": ExpertConfig(rank=3, alpha=6.0, projections=("up_proj",)),
    }
    for message, config in wrong.items():
        with pytest.raises(ValueError, match=message):
            ExpertBank(toys(0), config, "base-1").load(1, path)


def test_a_wrong_width_raises(bank: ExpertBank, saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    key = next(iter(bank.expected_shapes()))
    torch.save({**content, key: torch.zeros(3, 5)}, saved)
    with pytest.raises(ValueError, match=rf"{key} has shape \(3, 5\)"):
        bank.load(1, saved)
    torch.save({**content, key: content[key].int()}, saved)
    with pytest.raises(ValueError, match="floating"):
        bank.load(1, saved)
    torch.save({**content, key: [1.0]}, saved)
    with pytest.raises(ValueError, match="is a list, expected a tensor"):
        bank.load(1, saved)


def test_a_missing_or_damaged_file_raises(bank: ExpertBank, saved: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.pt: no such file"):
        bank.load(1, saved.with_name("absent.pt"))
    whole = saved.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:40], b"", b"not a file of tensors"):
        saved.write_bytes(content)
        with pytest.raises(ValueError, match=r"expert_task_1\.pt"):
            bank.load(1, saved)
    torch.save([torch.zeros(2)], saved)
    with pytest.raises(ValueError, match="expected a dictionary"):
        bank.load(1, saved)


class Code:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_carries_code_does_not_load(
    bank: ExpertBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "e.pt"
    if how == "torch":
        torch.save({"model.layers.0.mlp.up_proj.weight": Code()}, path)
    else:
        path.write_bytes(pickle.dumps({"a": Code()}))
    with pytest.raises(ValueError, match=r"e\.pt: .*not loaded"):
        bank.load(1, path)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_header_raises(bank: ExpertBank, saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    for entry, message in (
        ({**content["expert"], "format": 9}, "format 9"),
        ({"kind": "lora"}, "expected the keys"),
        (3, "entry 'expert' is int"),
    ):
        torch.save({**content, "expert": entry}, saved)
        with pytest.raises(ValueError, match=message):
            bank.load(1, saved)
    torch.save({"expert": content["expert"], "head.weight": torch.zeros(1)}, saved)
    with pytest.raises(ValueError, match=r"unexpected key 'head\.weight'"):
        inspect_expert(saved)


def test_a_published_file_loads_as_mlp(
    toys: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bank = ExpertBank(toys(0), ExpertConfig(kind="mlp"), "base-1")
    weights = {key: torch.randn(shape).bfloat16() for key, shape in bank.expected_shapes().items()}
    torch.save(weights, tmp_path / "expert_task_2.pt")
    bank.load(2, tmp_path / "expert_task_2.pt")
    assert "base unverified" in caplog.text
    assert all(torch.equal(value, weights[key].float()) for key, value in bank.state(2).items())
    assert inspect_expert(tmp_path / "expert_task_2.pt").header.kind == "mlp"
    with pytest.raises(ValueError, match="without its entry 'expert'"):
        torch.save({"model.layers.0.mlp.up_proj.lora_A.weight": torch.zeros(1, 1)}, tmp_path / "e.pt")
        bank.load(2, tmp_path / "e.pt")


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    bank: ExpertBank, saved: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, moment, full)
    bank.load_state(1, bank.state(3))
    with pytest.raises(OSError, match=r"expert_task_1\.pt: not saved \(No space left on device\)"):
        bank.save(1, saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_folder_that_cannot_be_made_is_named(bank: ExpertBank, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/e\.pt: not saved"):
        bank.save(1, tmp_path / "file" / "e.pt")


def test_a_diverged_expert_is_not_saved(bank: ExpertBank, saved: Path) -> None:
    before = saved.read_bytes()
    with torch.no_grad():
        next(iter(bank.parameters_of(1).values()))[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        bank.save(1, saved)
    assert saved.read_bytes() == before


def test_a_file_survives_a_whole_model_round_trip(
    bank: ExpertBank, toy: nn.Module, toys: Callable, saved: Path
) -> None:
    """Loading in another process: same answers, nothing of the model in the file."""
    x = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0))
    model = toys(0)
    fresh = ExpertBank(model, bank.config, "base-1")
    fresh.load(1, saved)
    with bank.use([1, 1]), fresh.use([1, 1]), torch.no_grad():
        assert torch.equal(toy(x), model(x))
    assert saved.stat().st_size < 40_000
