"""Distillation against its definition, and a teacher that does not learn."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from methods.lwf import LwF, distillation
from tests.unit.train.small_training import StubInputs, small_model
from train.cells import Cell


def test_distillation_is_the_divergence_of_softened_distributions() -> None:
    torch.manual_seed(0)
    now, before = torch.randn(3, 7, requires_grad=True), torch.randn(3, 7)
    p, q = (before / 2).softmax(-1), (now / 2).softmax(-1)
    found = distillation(now, before)
    torch.testing.assert_close(found, 4 * (p * (p / q).log()).sum())
    torch.testing.assert_close(found, 4 * F.kl_div(q.log(), p, reduction="none").sum())
    found.backward()
    torch.testing.assert_close(now.grad, 2 * (q - p).detach())  # T^2 (q - p) / T


@pytest.fixture
def shop() -> Any:
    """A model with expert 1 at its starting point."""
    model = small_model()
    assert model.bank is not None
    model.bank.add(1, generator=torch.Generator().manual_seed(1))
    return SimpleNamespace(model=model, bank=model.bank)


def test_the_teacher_is_the_expert_before_and_stays(tmp_path: Path, shop: Any) -> None:
    cell = Cell("lwf", 1, (), tmp_path, None, tmp_path, start_from=tmp_path / "expert_task_0.pt")
    samples: Any = [SimpleNamespace(index=n, length=6 + n) for n in range(3)]
    batch = StubInputs().batch(samples, with_answers=True)
    with LwF(lwf_lambda=3.0).extra(cell, shop) as extra:
        parameters = shop.bank.train_only(1)
        with shop.bank.use([1] * 3):
            logits = shop.model(batch, [1] * 3).logits
            same = extra.of_answers(batch, logits)
        assert same is not None and same.item() == pytest.approx(0.0, abs=1e-5)
        before = logits.detach()
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(0.3)
        logits = shop.model(batch, [1] * 3).logits
        added = extra.of_answers(batch, logits)
        assert added is not None
        torch.testing.assert_close(added, 3 * distillation(logits, before), rtol=1e-4, atol=1e-5)
        added.backward()
        assert all(parameter.grad is not None for parameter in parameters)
        assert shop.bank.task_ids == [1, 2]
        assert not any(parameter.requires_grad for parameter in shop.bank.parameters_of(2).values())
    assert shop.bank.task_ids == [1]


def test_the_first_task_has_no_teacher(tmp_path: Path, shop: Any) -> None:
    with LwF().extra(Cell("lwf", 0, (), tmp_path, None, tmp_path), shop):
        assert shop.bank.task_ids == [1]
