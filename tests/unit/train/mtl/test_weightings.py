"""Weightings: what a single task, many steps and a restart do to them."""

import pytest
import torch
from torch import Tensor

from train.mtl.choices import SETTINGS, WEIGHTINGS, WeightingConfig, make_weighting
from train.mtl.gradient_weightings import MGDA_NORMALISATIONS, shortest
from train.mtl.weightings import Coefficients, Weighting

ROWS = torch.tensor([[1.0, 0.0, 0.5], [-0.5, 1.0, 0.0], [0.1, 0.4, 2.0]])
GRAMIAN = ROWS @ ROWS.T
LOSSES = torch.tensor([1.0, 0.5, 2.0])
VALID = torch.tensor([1.0, 0.0, 1.0])


def step(weighting: Weighting, seed: int = 0) -> Coefficients:
    torch.manual_seed(seed)
    weighting.ahead()
    return weighting.coefficients(LOSSES / (seed + 1), GRAMIAN)


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_coefficients_fit_the_losses(name: str) -> None:
    weighting = make_weighting(WeightingConfig(name), 3)
    weighting.begin_epoch([[1.0, 2.0, 3.0], [0.5, 1.0, 2.0]])
    torch.manual_seed(0)
    ahead = weighting.ahead()
    found = weighting.coefficients(LOSSES, GRAMIAN)
    for values in found:
        assert values.shape == (3,) and values.dtype == torch.float32
        assert (values >= 0).all() or name == "IMTL"
    if ahead is not None:
        assert torch.equal(ahead, found.shared) and torch.equal(ahead, found.own)
        assert not weighting.needs_gramian
    for parameter in weighting.parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any()


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_a_restart_changes_nothing(name: str) -> None:
    one, two = (make_weighting(WeightingConfig(name, update_weights_every=2), 3) for _ in range(2))
    for seed in range(3):
        step(one, seed)
    two.load_state_dict(one.state_dict())
    for seed in range(3, 6):
        for ours, theirs in zip(step(one, seed), step(two, seed), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_shortest_combination() -> None:
    weights = shortest(GRAMIAN.double())
    norms = GRAMIAN.double() @ weights
    assert weights.sum() == pytest.approx(1) and (weights >= -1e-12).all()
    torch.testing.assert_close(norms[weights > 1e-6], (weights @ norms).expand(int((weights > 1e-6).sum())))
    aligned = torch.tensor([[1.0, 2.0], [2.0, 4.0]]).double()
    torch.testing.assert_close(shortest(aligned), torch.tensor([1.0, 0.0]).double())
    assert torch.isfinite(shortest(torch.zeros(3, 3).double())).all()


@pytest.mark.parametrize("mgda_gn", MGDA_NORMALISATIONS)
def test_mgda_does_not_divide_by_0(mgda_gn: str) -> None:
    weighting = make_weighting(WeightingConfig("MGDA", mgda_gn=mgda_gn), 3)
    found = weighting.coefficients(LOSSES * VALID, GRAMIAN * torch.outer(VALID, VALID)).shared
    torch.testing.assert_close(found, 1 - VALID, rtol=0, atol=1e-6)  # 0 is the shortest, unscaled
    one = weighting.coefficients(LOSSES * VALID, GRAMIAN).shared  # a loss of 0 that still has a gradient
    assert torch.isfinite(one).all() and one.sum() > 0


def test_cagrad_leaves_out_whom_no_step_helps() -> None:
    three, two = (make_weighting(WeightingConfig("CAGrad"), tasks) for tasks in (3, 2))
    found = three.coefficients(LOSSES * VALID, GRAMIAN * torch.outer(VALID, VALID)).shared
    alone = two.coefficients(LOSSES[::2], GRAMIAN[::2, ::2]).shared
    torch.testing.assert_close(found[::2], alone * 2 / 3, rtol=1e-5, atol=1e-6)
    assert found[1] == 0
    opposite = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert torch.isfinite(two.coefficients(LOSSES[:2], opposite).shared).all()


@pytest.mark.parametrize("name", [name for name, cls in WEIGHTINGS.items() if cls.needs_gramian])
def test_weights_are_equal_where_nothing_has_a_gradient(name: str) -> None:
    weighting = make_weighting(WeightingConfig(name), 3)
    weighting.begin_epoch([[1.0, 2.0, 3.0]])
    found = weighting.coefficients(torch.zeros(3), torch.zeros(3, 3, dtype=torch.float64))
    for values in found:
        torch.testing.assert_close(values, torch.ones(3))
    for parameter in weighting.parameters():
        assert torch.isfinite(parameter.grad).all()


def test_dwa_is_equal_until_two_epochs_are_known() -> None:
    weighting = make_weighting(WeightingConfig("DWA"), 2)
    for history in ([], [[1.0, 2.0]]):
        weighting.begin_epoch(history)
        assert weighting.ahead().tolist() == [1, 1]
    weighting.begin_epoch([[1.0, 1.0], [0.5, 1.0]])
    expected: Tensor = 2 * torch.softmax(torch.tensor([0.25, 0.5]), 0)
    torch.testing.assert_close(weighting.ahead(), expected)


def test_faults_are_named() -> None:
    with pytest.raises(ValueError, match="weighting 'XW'; expected one of EW, UW"):
        WeightingConfig("XW")
    with pytest.raises(ValueError, match="mgda_gn 'l3'"):
        make_weighting(WeightingConfig("MGDA", mgda_gn="l3"), 3)
    with pytest.raises(ValueError, match="rescale 5"):
        make_weighting(WeightingConfig("CAGrad", rescale=5), 3)
    assert set(SETTINGS) <= set(WEIGHTINGS)
