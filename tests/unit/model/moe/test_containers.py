"""Experts and anchors as safetensors: the same content as .pt, read as strictly."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.folders import StudyFolders, stored_anchor, stored_expert, tasks_in
from model.moe.anchor_files import load_anchor, save_anchor
from model.moe.anchors import Anchor
from model.moe.expert_files import inspect_expert
from model.moe.experts import ExpertBank
from model.moe.files import read_tensor_file, stored_path, write_tensor_file
from scripts.convert_tensors import convert


@pytest.fixture
def saved(bank: ExpertBank, tmp_path: Path) -> Path:
    path = tmp_path / "expert_task_1.safetensors"
    bank.save(1, path)
    return path


@pytest.fixture
def anchor() -> Anchor:
    rows = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    return Anchor.from_features(2, {"text": rows}, base_identity="base-1")


def test_an_expert_is_the_same_in_both(bank: ExpertBank, toys: Callable, saved: Path) -> None:
    bank.save(1, saved.with_suffix(".pt"))
    assert inspect_expert(saved) == inspect_expert(saved.with_suffix(".pt"))
    fresh = ExpertBank(toys(0), bank.config, "base-1")
    fresh.load(1, saved)
    assert all(torch.equal(value, bank.state(1)[key]) for key, value in fresh.state(1).items())
    assert set(load_file(saved)) == set(bank.expected_shapes())  # nothing but tensors for other readers


def test_equal_experts_are_equal_files(bank: ExpertBank, saved: Path, tmp_path: Path) -> None:
    bank.save(1, tmp_path / "again.safetensors")
    assert saved.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_it_is_as_strict(bank: ExpertBank, toys: Callable, saved: Path) -> None:
    with pytest.raises(ValueError, match="task_id is 1, expected 0"):
        bank.load(0, saved)
    with pytest.raises(ValueError, match="made for base base-1, the backbone loaded is base-2"):
        ExpertBank(toys(0), bank.config, "base-2").load(1, saved)
    tensors = {key: value.clone() for key, value in load_file(saved).items()}
    save_file({"head.weight": torch.zeros(1), **tensors}, saved)
    with pytest.raises(ValueError, match="without its entry 'expert'|unexpected key 'head"):
        inspect_expert(saved)
    save_file(tensors, saved, {"plain": "[1]"})
    with pytest.raises(ValueError, match="no plain entries"):
        bank.load(1, saved)
    save_file(tensors, saved, {"plain": '{"expert": {"kind": "lora"}}'})
    with pytest.raises(ValueError, match="expected the keys"):
        bank.load(1, saved)
    whole = saved.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:5], b""):
        saved.write_bytes(content)
        with pytest.raises(ValueError, match=r"expert_task_1\.safetensors: truncated"):
            bank.load(1, saved)


def test_both_must_agree(bank: ExpertBank, saved: Path) -> None:
    twin = convert(saved)
    bank.load(1, saved)
    bank.load(1, twin)
    bank.load_state(1, bank.state(3))
    bank.save(1, twin)
    for path in (saved, twin):
        with pytest.raises(ValueError, match=r"differ in 'model\.layers\.0"):
            bank.load(1, path)
    with pytest.raises(ValueError, match="differ in"):
        convert(saved)
    convert(twin, overwrite=True)
    bank.load(1, saved)
    content = read_tensor_file(twin)
    if "expert" in content:
        torch.save({**content, "expert": {**content["expert"], "alpha": 7.0}}, twin)  # type: ignore[dict-item]
        with pytest.raises(ValueError, match="differ in 'expert'"):
            bank.load(1, saved)


def test_conversion_there_and_back_keeps_every_bit(bank: ExpertBank, saved: Path, tmp_path: Path) -> None:
    state = {key: value.bfloat16() for key, value in bank.state(1).items()}
    original = tmp_path / "expert_task_0.pt"
    torch.save(state, original)  # as published: no header, 16 bits
    convert(original)
    size = original.stat().st_size
    original.unlink()
    convert(original.with_suffix(".safetensors"))
    back = torch.load(original, weights_only=True)
    assert back.keys() == state.keys()
    assert all(value.dtype == torch.bfloat16 and torch.equal(value, state[k]) for k, value in back.items())
    assert original.stat().st_size < 1.5 * size  # no tensor drags the whole file along
    with pytest.raises(ValueError, match="expected an expert or anchor"):
        convert(tmp_path / "expert_task_0.run.json")


def test_an_anchor_is_the_same_in_both(anchor: Anchor, tmp_path: Path) -> None:
    path = tmp_path / "anchor_task_2.safetensors"
    save_anchor(anchor, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "anchor_task_2.stats.safetensors"]
    loaded = load_anchor(path, 2, "base-1")
    assert loaded.complete and torch.equal(loaded.means["text"], anchor.means["text"])
    convert(path)
    torch.save({"text": torch.zeros(5)}, path.with_suffix(".pt"))
    with pytest.raises(ValueError, match="differ in 'text'"):
        load_anchor(path, 2, "base-1")
    path.with_suffix(".pt").unlink()
    save_file({"text": torch.zeros(5)}, path)
    with pytest.raises(ValueError, match="not the means that"):
        load_anchor(path, 2, "base-1")
    with pytest.raises(ValueError, match="expected an expert or anchor"):
        convert(tmp_path / "anchor_task_2.stats.safetensors")


def test_what_json_cannot_hold_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    with pytest.raises(ValueError, match=r"e\.safetensors: cannot be written as safetensors"):
        write_tensor_file(path, {"a": torch.zeros(2), "b": {1, 2}})
    assert not path.exists()


def test_the_one_that_is_there_is_found(tmp_path: Path) -> None:
    names = ("expert_task_0.pt", "expert_task_0.run.json", "expert_task_10.safetensors")
    for name in (*names, "anchor_task_0.safetensors", "anchor_task_3.stats.safetensors"):
        (tmp_path / name).touch()
    assert tasks_in(tmp_path) == [0, 10] and tasks_in(tmp_path, "anchor_task_") == [0]
    assert stored_expert(tmp_path, 0).name == "expert_task_0.pt"
    assert stored_expert(tmp_path, 10).name == "expert_task_10.safetensors"
    assert stored_expert(tmp_path, 5).name == "expert_task_5.pt"  # what an error names as missing
    assert stored_anchor(tmp_path, 0).name == "anchor_task_0.safetensors"
    assert stored_path(tmp_path / "run.json") == tmp_path / "run.json"
    assert StudyFolders(tmp_path, given_experts=tmp_path).anchors("anchor_moe") == tmp_path
