"""Branches of low rank under a learned gate."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.moe.expert_files import inspect_expert
from model.moe.expert_pack import packed_experts
from model.moe.expert_sites import ExpertConfig, GatedConfig
from model.moe.experts import NO_EXPERT, ExpertBank
from model.moe.files import read_tensor_file, write_tensor_file
from model.moe.gated import GatedBank, exchanged, open_bank

SITE = "model.layers.2.mlp.up_proj"
MIXED = [1, NO_EXPERT, 0, 1, 0, NO_EXPERT]
CONFIG = GatedConfig(rank=6, alpha=3.0, branches=3)


@pytest.fixture
def gated(toy: nn.Module, fill: Callable[..., None]) -> ExpertBank:
    """A bank with gated experts 0 and 1 whose gates are far from even."""
    made = open_bank(toy, CONFIG, "base-1")
    for task_id in (0, 1):
        made.add(task_id, generator=torch.Generator().manual_seed(task_id))
    fill(made)
    for task_id in (0, 1):
        state = made.state(task_id)
        made.load_state(task_id, {k: 20 * v if "lora_gate" in k else v for k, v in state.items()})
    return made


def by_hand(x: Tensor, weight: Tensor, state: dict[str, Tensor]) -> Tensor:
    """One layer, sample by sample, token by token and branch by branch. (B, T, in) -> (B, T, out)"""
    a, b, gate = (state[f"{SITE}.lora_{part}.weight"] for part in ("A", "B", "gate"))
    rows = []
    for token in x.flatten(0, -2):
        scores = torch.stack([gate[e] @ token for e in range(3)])
        weights = scores.exp() / scores.exp().sum()
        y = weight @ token
        for e in range(3):
            own = range(e, 6, 3)  # rows of rank 6 / 3 = 2
            for r in own:
                y = y + 3.0 / 2 * weights[e] * (a[r] @ token) * b[:, r]
        rows.append(y)
    return torch.stack(rows).view(*x.shape[:-1], -1)


def test_a_layer_and_its_gradients_equal_a_loop_by_hand(gated: ExpertBank, toy: nn.Module, x: Tensor) -> None:
    parameters = gated.train_only(1)
    toy.double()
    gated.double()
    x = x.double()
    layer = toy.get_submodule("layers.2.mlp.up_proj")
    named = {key: p for key, p in gated.parameters_of(1).items() if key.startswith(SITE)}
    with gated.use([1] * 6):
        got = layer(x)
    by_us = torch.autograd.grad(got.square().sum(), list(named.values()))
    copies = {key: p.detach().clone().requires_grad_() for key, p in named.items()}
    expected = by_hand(x, layer.weight.detach(), copies)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(
        by_us, torch.autograd.grad(expected.square().sum(), list(copies.values())), strict=True
    ):
        assert ours.abs().sum() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert len(parameters) == len(gated.expected_shapes()) == 3 * len(gated.layers)


def test_rows_of_a_mixed_batch_are_those_alone_and_bare_rows_the_backbone(
    toys: Callable, gated: ExpertBank, toy: nn.Module, x: Tensor
) -> None:
    with torch.no_grad():
        plain = toys(0)(x)
        with gated.use(MIXED):
            mixed = toy(x)
        assert torch.equal(mixed[[1, 5]], plain[[1, 5]])
        for row, task_id in enumerate(MIXED):
            with gated.use([task_id]):
                torch.testing.assert_close(mixed[row : row + 1], toy(x[row : row + 1]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mixed[0], plain[0], atol=1e-3)


def test_under_an_even_gate_it_is_the_plain_lora_of_the_same_rank(
    toys: Callable, gated: ExpertBank, toy: nn.Module, x: Tensor
) -> None:
    state = gated.state(1)
    gated.load_state(1, {key: 0 * v if "lora_gate" in key else v for key, v in state.items()})
    plain = toys(0)
    lora = ExpertBank(plain, ExpertConfig(rank=6, alpha=3.0), None)
    lora.add(1, init={key: value for key, value in state.items() if "lora_gate" not in key})
    with torch.no_grad(), gated.use([1] * 6), lora.use([1] * 6):
        torch.testing.assert_close(toy(x), plain(x), rtol=1e-5, atol=1e-5)


def test_a_fresh_one_is_the_backbone_and_its_gate_learns_once_b_is_not_zero(
    toys: Callable, x: Tensor
) -> None:
    toy = toys(0)
    with torch.no_grad():
        plain = toy(x)
    bank = open_bank(toy, CONFIG)
    bank.add(0, generator=torch.Generator().manual_seed(5))
    optimiser = torch.optim.Adam(bank.train_only(0), lr=1e-3)
    with bank.use([0] * 6):
        torch.testing.assert_close(toy(x), plain)
        for _ in range(3):
            optimiser.zero_grad()
            toy(x).square().mean().backward()
            optimiser.step()
    state = bank.state(0)
    assert all(value.abs().sum() > 0 for key, value in state.items() if "lora_gate" in key)
    with pytest.raises(ValueError, match="generator"):
        bank.fresh_state(None)


def test_dropout_leaves_the_gate_alone(gated: ExpertBank, toy: nn.Module, x: Tensor) -> None:
    layer = toy.get_submodule("layers.2.mlp.up_proj")
    with gated.use([1] * 6), torch.no_grad():
        weights = layer.gate(x, 1)
        torch.testing.assert_close(weights.sum(-1), torch.ones(6, 5))
        plain = layer(x)
        with gated.dropping(0.5):
            assert torch.equal(layer.gate(x, 1), weights)
            torch.manual_seed(0)
            thinned = torch.stack([layer(x) for _ in range(2000)])
    deviation = thinned.std(0) / 2000**0.5
    assert (thinned.mean(0) - plain).abs().le(6 * deviation + 1e-5).all()


def test_a_file_keeps_every_bit_and_tells_how_to_read_it(
    gated: ExpertBank, toys: Callable, tmp_path: Path
) -> None:
    for name in ("expert_task_1.pt", "expert_task_1.safetensors"):
        path = tmp_path / name[-3:] / name
        gated.save(1, path)
        found = inspect_expert(path)
        assert found.config == replace(CONFIG, layers=(0, 2)) and found.header.branches == 3
        fresh = open_bank(toys(0), found.config, "base-1")
        assert isinstance(fresh, GatedBank)
        fresh.load(1, path)
        before, after = gated.state(1), fresh.state(1)
        assert list(before) == list(after) and all(torch.equal(before[key], after[key]) for key in before)
        assert packed_experts([path]) == {}, "packs hold plain LoRA experts only"


def test_files_of_another_make_raise(gated: ExpertBank, toys: Callable, tmp_path: Path) -> None:
    path = tmp_path / "expert_task_1.pt"
    gated.save(1, path)
    with pytest.raises(ValueError, match="branches is 3, expected 2"):
        open_bank(toys(0), replace(CONFIG, branches=2), "base-1").load(1, path)
    with pytest.raises(ValueError, match="kind is 'gated', expected 'lora'"):
        open_bank(toys(0), ExpertConfig(rank=6, alpha=3.0), "base-1").load(1, path)
    with pytest.raises(ValueError, match="made for base base-1, the backbone loaded is base-2"):
        open_bank(toys(0), CONFIG, "base-2").load(1, path)
    content = read_tensor_file(path)
    write_tensor_file(path, {k: v for k, v in content.items() if k != f"{SITE}.lora_gate.weight"})
    with pytest.raises(ValueError, match=r"1 keys missing.*layers\.2\.mlp\.up_proj\.lora_gate"):
        open_bank(toys(0), CONFIG, "base-1").load(1, path)


@pytest.mark.parametrize(("rank", "branches"), [(6, 4), (6, 0)])
def test_branches_divide_the_rank(rank: int, branches: int) -> None:
    with pytest.raises(ValueError, match=f"rank 6 in {branches} branches"):
        GatedConfig(rank=rank, branches=branches)


def test_the_kind_and_the_configuration_go_together() -> None:
    with pytest.raises(ValueError, match="'gated' in a ExpertConfig"):
        ExpertConfig(kind="gated")
    with pytest.raises(ValueError, match="'lora' in a GatedConfig"):
        GatedConfig(kind="lora")


def test_banks_are_exchanged_for_a_while(lora: ExpertBank, toys: Callable, toy: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        plain = toys(0)(x)
        with lora.use(MIXED):
            before = toy(x)
        with pytest.raises(KeyError), exchanged(toy, lora, CONFIG) as other:
            assert isinstance(other, GatedBank) and other.base_identity == "base-1" and not other.task_ids
            other.add(5, generator=torch.Generator().manual_seed(0))
            with other.use([5] * 6):
                torch.testing.assert_close(toy(x), plain)
            raise KeyError
        with lora.use(MIXED):
            assert torch.equal(toy(x), before)
        with (
            pytest.raises(ValueError, match="no linear layers"),
            exchanged(toy, lora, replace(CONFIG, projections=("v_proj",))),
        ):
            pass
        with lora.use(MIXED):
            assert torch.equal(toy(x), before)
