"""A task's own ranks learn, the others keep every bit; killed and resumed, too."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from methods.olora import OLoRA, Subspace, share
from model.moe.experts import ExpertBank
from tests.unit.train.small_training import CONFIG, training
from train.cells import Cell

FOUR = replace(CONFIG, weight_decay=0.1, expert=replace(CONFIG.expert, rank=4))


def middle(bank: ExpertBank) -> Subspace:
    """Ranks 1 and 2 of 4, for expert 0."""
    return Subspace(bank.parameters_of(0), 1, 3, weight=0.5)


def own(key: str, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tensor with ranks 1 and 2 alone, and with the others alone."""
    by_rank = value if key.endswith(".lora_A.weight") else value.T
    return by_rank[1:3], by_rank[[0, 3]]


def test_the_ranks_are_shared_out() -> None:
    assert [share(place, 4, 32) for place in range(4)] == [(0, 8), (8, 16), (16, 24), (24, 32)]
    assert [share(place, 3, 8) for place in range(3)] == [(0, 2), (2, 5), (5, 8)]


def test_other_ranks_keep_every_bit(tmp_path: Path) -> None:
    def nowhere_zero(bank: ExpertBank) -> Subspace:
        with torch.no_grad():
            for parameter in bank.parameters_of(0).values():
                parameter.add_(0.01)  # B would not decay from zero
        return middle(bank)

    made, bank = training(tmp_path, FOUR, extra=nowhere_zero)
    before = bank.state(0)
    made.run()
    for key, value in bank.state(0).items():
        (learned, kept), (start, fixed) = own(key, value), own(key, before[key])
        assert torch.equal(kept, fixed), key
        assert not torch.equal(learned, start), key


def test_the_penalty_is_the_overlap() -> None:
    a = nn.Parameter(torch.tensor([[1.0, 0.0], [0.5, -2.0], [9.0, 9.0]]))
    b = nn.Parameter(torch.ones(2, 3))
    keys = {"x.lora_A.weight": a, "x.lora_B.weight": b}
    assert Subspace(keys, 0, 1, weight=2.0).penalty() is None
    second = Subspace(keys, 1, 2, weight=2.0)
    penalty = second.penalty()
    assert penalty is not None and penalty.item() == 2 * 0.5  # |(1, 0) . (0.5, -2)|
    penalty.backward()
    assert a.grad is not None and a.grad.tolist() == [[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]]


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, bank = training(tmp_path / "whole", FOUR, extra=middle)
    whole.run()
    wanted = bank.state(0)
    broken, _ = training(tmp_path / "broken", FOUR, extra=middle)
    step = broken._step

    def two_steps(number: int) -> tuple[float, float]:
        if number == 2:
            raise KeyboardInterrupt
        return step(number)

    broken._step = two_steps  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    resumed, bank = training(tmp_path / "broken", FOUR, extra=middle)
    resumed.run()
    for key, value in bank.state(0).items():
        assert torch.equal(value, wanted[key]), key


@pytest.mark.parametrize(("kind", "rank"), [("lora", 3), ("mlp", 16)])
def test_too_little_rank_is_refused(tmp_path: Path, kind: str, rank: int) -> None:
    cell = Cell("olora", 0, (), tmp_path, None, tmp_path, tasks=(0, 1, 2, 3), recipe=OLoRA())
    shop: Any = SimpleNamespace(
        accelerator=SimpleNamespace(distributed_type=SimpleNamespace(value="NO")),
        config=SimpleNamespace(expert=SimpleNamespace(kind=kind, rank=rank)),
    )
    with pytest.raises(ValueError, match=f"4 tasks share the rank, got {kind} experts of rank {rank}"):
        OLoRA().refuse(cell, shop)
    assert OLoRA(olora_lambda=0.25).settings(cell) == {"olora_lambda": 0.25, "tasks": 4}
