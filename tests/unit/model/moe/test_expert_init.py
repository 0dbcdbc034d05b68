"""Starting points from earlier experts."""

import pytest
import torch
from torch import Tensor, nn

from model.moe.expert_init import copied_state, mean_state, mean_update, principal_state
from model.moe.experts import ExpertBank


def product(state: dict[str, Tensor], key: str) -> Tensor:
    return state[f"{key}.lora_B.weight"] @ state[f"{key}.lora_A.weight"]


def test_the_mean_of_one_expert_is_that_expert(bank: ExpertBank, toy: nn.Module, x: Tensor) -> None:
    bank.add(5, init=mean_state([bank.state(1)]))
    with torch.no_grad(), bank.use([1] * 6):
        one = toy(x)
    with torch.no_grad(), bank.use([5] * 6):
        torch.testing.assert_close(toy(x), one, rtol=1e-4, atol=1e-5)


def test_the_mean_is_the_best_low_rank_mean_update(lora: ExpertBank) -> None:
    states = [lora.state(task_id) for task_id in lora.task_ids]
    mean = mean_state(states)
    for key in lora.layers:
        wanted = torch.stack([product(state, key) for state in states]).mean(0)
        error = (
            torch.linalg.svdvals(wanted.double())[3:].square().sum().sqrt()
        )  # rank 3 keeps the first three
        got = torch.linalg.norm((product(mean, key) - wanted).double())
        torch.testing.assert_close(got, error, rtol=1e-4, atol=1e-6)


def test_equal_updates_with_other_signs_do_not_cancel(lora: ExpertBank) -> None:
    state = lora.state(0)
    flipped = {key: -value for key, value in state.items()}
    key = "model.layers.0.mlp.up_proj"
    torch.testing.assert_close(
        product(mean_state([state, flipped]), key), product(state, key), rtol=1e-4, atol=1e-5
    )


def test_full_weights_are_averaged() -> None:
    states = [{"w": torch.full((2, 2), value)} for value in (1.0, 2.0, 6.0)]
    assert torch.equal(mean_state(states)["w"], torch.full((2, 2), 3.0))


def test_no_direction_starts_dead() -> None:
    a, b = mean_update([(torch.randn(2, 8), torch.zeros(6, 2))] * 2)
    assert b.abs().max() == 0 and (a.norm(dim=1) > 0.3).all()


def test_experts_that_do_not_match_have_no_mean(lora: ExpertBank) -> None:
    with pytest.raises(ValueError, match="no experts"):
        mean_state([])
    with pytest.raises(ValueError, match="no mean"):
        mean_state([lora.state(0), dict(list(lora.state(1).items())[:2])])


def test_copies_are_independent(lora: ExpertBank) -> None:
    state = lora.state(0)
    copy = copied_state(state)
    key = next(iter(state))
    copy[key].zero_()
    assert state[key].abs().sum() > 0


def test_a_looks_where_the_inputs_differ_and_not_at_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(12, 2, generator=generator))[0]  # two directions of 12
    x = 50.0 + torch.randn(40, 2, generator=generator) @ plane.T
    fresh = {"l.lora_A.weight": torch.rand(4, 12, generator=generator), "l.lora_B.weight": torch.zeros(5, 4)}
    state = principal_state(fresh, {"l": x})
    a = state["l.lora_A.weight"]
    torch.testing.assert_close(a[:2] @ plane @ plane.T, a[:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(a[:2] @ a[:2].T, torch.eye(2) / 3, rtol=1e-4, atol=1e-5)
    assert torch.equal(a[2:], fresh["l.lora_A.weight"][2:]), "40 states in a plane have two directions"
    assert torch.equal(state["l.lora_B.weight"], fresh["l.lora_B.weight"])
    again = principal_state(fresh, {"l": x.flip(0)})["l.lora_A.weight"]
    torch.testing.assert_close(again, a, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="inputs nothing"):
        principal_state(fresh, {})
