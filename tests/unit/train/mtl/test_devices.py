"""A step on a device that is not the CPU, without a GPU: torch's fake tensors know devices, shapes and types,
but no numbers, and raise where tensors of two devices meet.
"""

import types
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from data.parallel import run_forked
from examples.nyu.benchmark import random_batch
from examples.nyu.config import StudyConfig
from examples.nyu.study import make_trainer
from train.mtl.trainer import Trainer
from train.reporting import Reporting

ARCHITECTURES = {"AOEMTL": (1, 1), "HPS": (1,), "MMoE": (2,), "CGC": (1, 1), "PLE": (1, 1), "STL": (1,)}
ENCODERS = {"plain": (48, 64), "resnet50": (64, 64)}
CASES = [*((arch, "plain") for arch in ARCHITECTURES), ("AOEMTL", "resnet50")]


def moved(tensor: Tensor, device: str, mode: FakeTensorMode) -> Tensor:
    """A fake tensor of the same shape, strides and type there."""
    with mode:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)


def trainer_on(device: str, arch: str, encoder: str, mode: FakeTensorMode, precision: str = "no") -> Trainer:
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    size = (3, *ENCODERS[encoder])
    experts = ARCHITECTURES[arch]
    config = StudyConfig(arch=arch, encoder=encoder, pretrained="none", num_experts=experts, img_size=size)
    trainer = make_trainer(config, accelerator, Reporting())
    for module in trainer.model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(moved(parameter.detach(), device, mode))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = moved(buffer, device, mode)
    trainer.backward.shared_parameters = list(dict.fromkeys(trainer.model.get_share_params()))
    accelerator.state.device = torch.device(device)
    return trainer


@pytest.fixture(autouse=True)
def _own_accelerator() -> object:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(("arch", "encoder"), CASES)
def test_a_step_stays_on_its_device(arch: str, encoder: str) -> None:
    run_forked([partial(make_step, arch, encoder)], 1)


def make_step(arch: str, encoder: str) -> None:
    """Forward, backward and optimiser; in a process of its own, since autograd starts threads for the device,
    after which this one could not fork any more."""
    mode = FakeTensorMode()
    trainer = trainer_on("meta", arch, encoder, mode)
    weights = types.SimpleNamespace(tolist=lambda: [1.0, 1.0, 1.0])  # a fake tensor has no numbers
    trainer.weighting.ahead = lambda: weights  # type: ignore[assignment, method-assign, return-value]
    inputs, targets = random_batch(2, *ENCODERS[encoder])
    there = {task: moved(target, "meta", mode) for task, target in targets.items()}
    optimizer = torch.optim.AdamW(trainer.model.parameters(), foreach=False)
    with mode:
        result = trainer.backward(moved(inputs, "meta", mode), there)
        gradients = [p.grad for p in trainer.model.parameters()]
        assert all(g is not None and g.device.type == "meta" for g in gradients)
        optimizer.step()
        assert result.losses.device.type == "cpu"


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch knows no CUDA device")
@pytest.mark.parametrize(("arch", "encoder"), CASES)
def test_a_16_bit_forward_pass_stays_on_a_gpu(
    arch: str, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without backward, for which autograd asks for a real one."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    mode = FakeTensorMode()
    trainer = trainer_on("cuda", arch, encoder, mode)
    inputs, targets = random_batch(2, *ENCODERS[encoder])
    there = {task: moved(target, "cuda", mode) for task, target in targets.items()}
    image = moved(inputs, "cuda", mode)
    with mode, torch.no_grad(), torch.autocast("cuda", torch.float16):
        outputs = trainer.model(image)
        for task, rule in trainer.tasks.items():
            assert outputs[task].dtype == torch.float16
            with torch.autocast("cuda", enabled=False):
                loss = rule.loss(rule.prepare(outputs[task], there[task]), there[task])
            assert loss.device.type == "cuda" and loss.dtype == torch.float32


def test_tensors_of_two_devices_are_noticed() -> None:
    mode = FakeTensorMode()
    trainer = trainer_on("meta", "AOEMTL", "plain", mode)
    shared = trainer.model.experts_shared[0]
    first = next(module for module in shared.modules() if isinstance(module, nn.BatchNorm2d))
    with mode:
        first.weight = nn.Parameter(torch.ones(first.num_features))
    image = moved(random_batch(2, 48, 64)[0], "meta", mode)
    with mode, pytest.raises(RuntimeError, match="device"):
        trainer.model(image)
