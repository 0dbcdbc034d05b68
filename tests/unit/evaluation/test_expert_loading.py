"""Experts of a folder into a bank, with and without packs."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from evaluation.expert_loading import load_experts
from model.moe.expert_pack import PACK
from model.moe.experts import ExpertBank, ExpertConfig


class Llm(nn.Module):
    """One decoder layer's MLP under the usual names."""

    def __init__(self) -> None:
        super().__init__()
        mlp = nn.ModuleDict({name: nn.Linear(6, 6) for name in ("gate_proj", "up_proj", "down_proj")})
        self.layers = nn.ModuleList([nn.ModuleDict({"mlp": mlp})])


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes a random expert and returns its file."""

    def write(task: int, config: ExpertConfig, base: str = "base-1") -> Path:
        bank = ExpertBank(Llm(), config, base)
        bank.add(task, generator=torch.Generator().manual_seed(task))
        path = tmp_path / f"expert_task_{task}.pt"
        bank.save(task, path)
        return path

    return write


@pytest.mark.parametrize("kind", ["lora", "mlp"])
@pytest.mark.parametrize("own_ids", [True, False])
def test_experts_and_digests_by_bank_id(save: Callable[..., Path], kind: str, own_ids: bool) -> None:
    config = ExpertConfig(kind=kind, rank=2 if kind == "lora" else 16, layers=(0,))
    paths = [save(task, config) for task in (2, 5)]
    ids = [2, 5] if own_ids else [0, 1]
    bank, digests = load_experts(Llm(), "base-1", dict(zip(ids, paths, strict=True)), own_ids=own_ids)
    assert bank.task_ids == ids and bank.config == config
    assert digests == {
        key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in zip(ids, paths, strict=True)
    }
    assert (paths[0].parent / PACK).is_file() == (kind == "lora")
    for key, path in zip(ids, paths, strict=True):
        saved = torch.load(path, weights_only=True)
        assert all(torch.equal(value, saved[name]) for name, value in bank.state(key).items())


@pytest.mark.parametrize("kind", ["lora", "mlp"])
def test_the_tokens_of_an_expert_stay_its_own(save: Callable[..., Path], kind: str, tmp_path: Path) -> None:
    scopes = {0: "text", 1: "all", 2: "answer"}
    files = {
        task: save(task, ExpertConfig(kind=kind, rank=2, layers=(0,), tokens=tokens))
        for task, tokens in scopes.items()
    }
    bank, _ = load_experts(Llm(), "base-1", files)
    assert {task: bank.tokens_of(task) for task in files} == scopes
    bank.save(2, tmp_path / "again" / "expert_task_2.pt")
    assert (tmp_path / "again" / "expert_task_2.pt").read_bytes() == files[2].read_bytes()


@pytest.mark.parametrize("kind", ["lora", "mlp"])
def test_what_does_not_fit_is_refused(save: Callable[..., Path], kind: str) -> None:
    config = ExpertConfig(kind=kind, rank=2, layers=(0,))
    path = save(0, config)
    with pytest.raises(ValueError, match="made for base"):
        load_experts(Llm(), "base-2", {0: path})
    with pytest.raises(ValueError, match="task_id is 0, expected 1"):
        load_experts(Llm(), "base-1", {1: path})
    other = save(1, ExpertConfig(kind=kind, rank=2, layers=(0,), projections=("up_proj",)))
    with pytest.raises(ValueError, match="different make"):
        load_experts(Llm(), "base-1", {0: path, 1: other})


def test_no_expert_gives_an_empty_bank() -> None:
    bank, digests = load_experts(Llm(), "base-1", {})
    assert bank.task_ids == [] and digests == {}
