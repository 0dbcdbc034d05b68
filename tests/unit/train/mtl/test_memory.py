"""The predicted need grows with what makes it grow, and too much is refused before the first step."""

from pathlib import Path

import pytest
import torch

from model.mtl.architectures import AOEMTL, HPS
from model.mtl.encoders import set_recompute
from tests.unit.train.mtl.small import IMAGE, make_trainer
from train.mtl import memory
from train.mtl.memory import MemoryNeed, check_memory, predict
from train.mtl.optim import OptimConfig


def test_prediction(tmp_path: Path) -> None:
    model = make_trainer(tmp_path, AOEMTL).model
    need, twice = (predict(model, (size, *IMAGE), OptimConfig()) for size in (4, 8))
    size = sum(p.numel() for p in model.parameters()) * 4
    assert need.parameters == 4 * size == twice.parameters
    assert 1.9 < twice.activations / need.activations <= 2
    assert predict(model, (4, *IMAGE), OptimConfig("sgd")).parameters == 3 * size
    assert predict(model, (4, *IMAGE), OptimConfig(), half=True).activations == need.activations // 2
    assert predict(make_trainer(tmp_path, HPS).model, (4, *IMAGE), OptimConfig()).total < need.total
    assert all(p.device.type == "cpu" for p in model.parameters())
    set_recompute(model, False)
    assert predict(model, (4, *IMAGE), OptimConfig()).activations > 1.2 * need.activations


@pytest.mark.parametrize("recompute", [False, True])
def test_activations_are_what_autograd_keeps(recompute: bool, tmp_path: Path) -> None:
    model = make_trainer(tmp_path, HPS).model
    set_recompute(model, recompute)
    weights = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def total() -> int:
        return sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in weights)

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        shared = model.shared(torch.rand(4, *IMAGE))
    common, kept = total(), {}
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        model.task_output("near", torch.rand(4, *IMAGE), (shared[0].detach().requires_grad_(),))
    need = predict(model, (4, *IMAGE), OptimConfig())
    assert need.activations == pytest.approx(common + total(), rel=0.02)


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 2**30)
    cpu = torch.device("cpu")
    assert "1.00 GiB free on cpu" in check_memory(MemoryNeed(2**29, 0, 0), cpu)
    with pytest.raises(ValueError, match="2.00 GiB predicted for a step, 1.00 GiB free.*--train_bs"):
        check_memory(MemoryNeed(2**30, 2**29, 2**29), cpu)


def test_free_memory_is_known_here() -> None:
    free = memory.available(torch.device("cpu"))
    assert free is None or 0 < free < 2**50
