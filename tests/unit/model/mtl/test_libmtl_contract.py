"""The contract of LibMTL: its trainer makes a class from an architecture and a weighting, calls `init_param`,
and its weightings use the attributes and methods asked for here. (LibMTL is no dependency.)
"""

from typing import Any

import pytest
import torch
from torch import nn

from model.mtl.architectures import AOEMTL, CGC, HPS, Architecture, MMoE
from model.mtl.encoders import PlainEncoder
from model.mtl.ple import PLE

TASKS = ["a", "b"]
IMAGE = (3, 8, 8)


class SumOfLosses(nn.Module):
    """A weighting with LibMTL's manners: no arguments, `init_param`, gradients by `get_share_params`."""

    def __init__(self) -> None:
        super().__init__()
        self.initialised = False

    def init_param(self) -> None:
        self.initialised = True

    def backward(self, losses: torch.Tensor) -> list[int]:
        assert self.task_num == len(losses) and self.device == torch.device("cpu")
        grads = [
            torch.autograd.grad(loss, list(self.get_share_params()), retain_graph=True) for loss in losses
        ]
        self.zero_grad_share_params()
        losses.sum().backward()
        return [len(row) for row in grads]


def as_libmtl_does(architecture: type[Architecture], **arch_args: Any) -> Any:
    class Model(architecture, SumOfLosses):  # type: ignore[misc, valid-type]
        def __init__(self, task_name, encoder_class, decoders, rep_grad, multi_input, device, kwargs):
            super().__init__(task_name, encoder_class, decoders, rep_grad, multi_input, device, **kwargs)
            self.init_param()

    heads = nn.ModuleDict({task: nn.Conv2d(4, 1, 1) for task in TASKS})
    rep_grad = arch_args.pop("rep_grad", False)
    encoder = lambda: PlainEncoder((2, 3, 4, 4))  # noqa: E731
    return Model(
        task_name=TASKS,
        encoder_class=encoder,
        decoders=heads,
        rep_grad=rep_grad,
        multi_input=False,
        device=torch.device("cpu"),
        kwargs=arch_args,
    )


@pytest.mark.parametrize(
    ("architecture", "numbers"), [(AOEMTL, [1, 1]), (CGC, [1, 1, 2]), (MMoE, [2]), (PLE, [1, 1]), (HPS, None)]
)
def test_one_step(architecture: type[Architecture], numbers: list[int] | None) -> None:
    model = as_libmtl_does(architecture, **({"num_experts": numbers, "img_size": IMAGE} if numbers else {}))
    assert model.initialised
    outputs = model(torch.rand(2, *IMAGE))
    losses = torch.stack([outputs[task].square().mean() for task in TASKS])
    assert model.backward(losses) == [len(list(model.get_share_params()))] * 2
    assert all(p.grad is not None for p in model.parameters())
    assert list(model(torch.rand(2, *IMAGE), "b")) == ["b"]


def test_gradients_of_the_representation() -> None:
    model = as_libmtl_does(HPS, rep_grad=True)
    outputs = model(torch.rand(2, *IMAGE))
    (outputs["a"].sum() + outputs["b"].sum()).backward()
    assert set(model.rep_tasks) == set(TASKS)
    assert all(rep.grad is not None for rep in model.rep_tasks.values())
    assert next(model.encoder.parameters()).grad is None
    model.rep.backward(sum(rep.grad for rep in model.rep_tasks.values()))
    assert next(model.encoder.parameters()).grad is not None
