"""The predicted need grows with what makes it grow, and too much is refused before the first step."""

from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from model.mtl.architectures import AOEMTL, HPS, Architecture
from model.mtl.encoders import PlainEncoder, set_recompute
from model.mtl.ple import PLE
from tests.unit.train.mtl.small import EXPERTS, IMAGE, TASKS, batch, make_trainer
from train.mtl import memory
from train.mtl.backward import TaskwiseBackward
from train.mtl.choices import WeightingConfig, make_weighting
from train.mtl.memory import LIBRARIES, LiveBytes, MemoryNeed, check_memory, predict
from train.mtl.optim import OptimConfig


def test_prediction(tmp_path: Path) -> None:
    model = make_trainer(tmp_path, AOEMTL).model
    set_recompute(model, True, least=0)
    need, twice = (predict(model, (size, *IMAGE), OptimConfig()) for size in (4, 8))
    size = sum(p.numel() for p in model.parameters()) * 4
    assert need.parameters == 3 * size == twice.parameters
    assert need.step < twice.step < 2 * need.step  # gradients stay the same
    assert predict(model, (4, *IMAGE), OptimConfig("sgd")).parameters == 2 * size
    half = predict(model, (4, *IMAGE), OptimConfig(), half=True)
    assert half.parameters == 4 * size
    assert half.step == pytest.approx(need.step / 2, rel=0.02)
    assert predict(make_trainer(tmp_path, HPS).model, (4, *IMAGE), OptimConfig()).total < need.total
    assert all(p.device.type == "cpu" for p in model.parameters())
    set_recompute(model, False)
    assert predict(model, (4, *IMAGE), OptimConfig()).step > 1.05 * need.step


@pytest.mark.parametrize("architecture", [HPS, AOEMTL])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_step_holds_what_was_predicted(
    recompute: bool, architecture: type[Architecture], tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, architecture)
    model = trainer.model
    set_recompute(model, recompute, least=0)
    need = predict(model, (4, *IMAGE), OptimConfig())
    inputs, targets = batch(range(4))
    with LiveBytes([*model.parameters(), *model.buffers(), inputs, *targets.values()]) as live:
        trainer.backward(inputs, targets)
    assert 0.95 * need.step < live.most < need.step + need.work - LIBRARIES  # losses are work


@pytest.mark.parametrize("weighting", ["EW", "FAMO", "MGDA", "GradNorm"])
@pytest.mark.parametrize("architecture", [HPS, AOEMTL, PLE])
def test_gradients_that_are_kept_apart_count(
    architecture: type[Architecture], weighting: str, tmp_path: Path
) -> None:
    """Wide encoders on small images: gradients are what memory holds."""
    encoder = partial(PlainEncoder, (16, 16, 32, 64))
    heads = {task: nn.Conv2d(64, 1, 1) for task in TASKS}
    model = architecture(list(TASKS), encoder, heads, num_experts=EXPERTS[architecture], img_size=IMAGE)
    rule = make_weighting(WeightingConfig(weighting), len(TASKS))
    need = predict(model, (4, *IMAGE), OptimConfig(), weighting=rule)
    inputs, targets = batch(range(4))
    step = TaskwiseBackward(model, rule, TASKS, Accelerator(cpu=True))
    with LiveBytes([*model.parameters(), *model.buffers(), inputs, *targets.values()]) as live:
        step(inputs, targets)
    assert 0.95 * need.step < live.most < need.step + need.work - LIBRARIES
    equal = predict(model, (4, *IMAGE), OptimConfig())
    shared = 4 * sum(p.numel() for p in set(model.get_share_params()))
    more = 0 if weighting == "EW" else len(TASKS) * shared
    assert need.step > 0.95 * (equal.step + more)
    half, equal = (predict(model, (4, *IMAGE), OptimConfig(), True, w) for w in (rule, None))
    # a task's gradients have 32 bits all the same
    assert half.parameters + half.step > 0.95 * (equal.parameters + equal.step + more)


def test_live_bytes() -> None:
    before = torch.ones(10)
    with LiveBytes([before]) as live:
        kept = before + 1
        view = kept.view(2, 5)
        del kept
        before.add_(1)
        torch.zeros(100).sum()
    assert (live.now, live.most, live.largest) == (40, 444, 400)
    del view
    assert live.now == 0


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 2**30)
    cpu = torch.device("cpu")
    assert "1.00 GiB free on cpu" in check_memory(MemoryNeed(2**29, 0, 0), cpu)
    with pytest.raises(ValueError, match="2.00 GiB predicted for a step, 1.00 GiB free.*--train_bs"):
        check_memory(MemoryNeed(2**30, 2**29, 2**29), cpu)
    with pytest.raises(ValueError, match="3 times 0.50 GiB predicted for a step, 1.00 GiB free"):
        check_memory(MemoryNeed(2**29, 0, 0), cpu, processes=3)
    check_memory(MemoryNeed(2**29, 0, 0), torch.device("cuda"), processes=3)  # each has its own


def test_free_memory_is_known_here() -> None:
    free = memory.available(torch.device("cpu"))
    assert free is None or 0 < free < 2**50
