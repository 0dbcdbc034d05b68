"""Activations that are made again in the backward pass, from the results of the convolutions.

Half of what autograd keeps of an encoder is made between convolutions, by normalisation, ReLU and addition,
in a few percent of its time; and some convolutions put out much for little work, such as those that widen a
bottleneck again. A stage run by `lean` keeps its input and the results of its dear convolutions; in the
backward pass the rest is made again, one stage at a time, by the same operations: the same bits. Means and
variances of a batch, two of the three passes of its normalisation, are kept as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

CONVOLUTION = torch.ops.aten.convolution.default
NORMALISATION = torch.ops.aten.native_batch_norm.default


def lean(stage: nn.Module, inputs: Tensor, dear: int) -> Tensor:
    """`stage(inputs)` in less memory.

    dear: multiply-adds by number from which a convolution's results are kept; others run again. Nothing may
        work on these results in place but what leaves them as they are when done again, such as ReLU.
    """
    contexts = partial(_contexts, stage, dear)
    return checkpoint(stage, inputs, use_reentrant=False, context_fn=contexts)


def _contexts(stage: nn.Module, dear: int) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Around a stage's first pass, and around those that make it again."""
    kept = _Kept([], [])
    return _Keep(kept, dear), _Again(stage, kept, dear)


class _Kept(NamedTuple):
    """Of a stage's first pass, in their order."""

    convolved: list[Tensor]
    statistics: list[tuple[Tensor, Tensor]]  # mean, one over the deviation


class _Keep(TorchDispatchMode):
    """Keeps the results of dear convolutions, and the statistics of batches."""

    def __init__(self, kept: _Kept, dear: int) -> None:
        super().__init__()
        self._kept, self._dear = kept, dear

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is CONVOLUTION and work(args[1]) >= self._dear:
            self._kept.convolved.append(out.detach())  # not out: it will hold the graph that holds this list
        elif func is NORMALISATION and _of_batch(args):
            self._kept.statistics.append((out[1].detach(), out[2].detach()))
        return out


class _Again(TorchDispatchMode):
    """Gives kept results in place of new ones, and puts the stage's buffers back in the end: running
    statistics must not see a batch twice. May be entered again and again, as a graph that is gone through
    several times does.
    """

    def __init__(self, stage: nn.Module, kept: _Kept, dear: int) -> None:
        super().__init__()
        self._kept, self._dear = kept, dear
        self._convolved, self._statistics = iter(kept.convolved), iter(kept.statistics)
        self._buffers = list(stage.buffers())
        self._before: list[Tensor] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is CONVOLUTION and work(args[1]) >= self._dear:
            return next(self._convolved).detach()
        if func is NORMALISATION and _of_batch(args):
            return _normalised(args, *next(self._statistics))
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> _Again:
        self._before = [buffer.clone() for buffer in self._buffers]
        self._convolved, self._statistics = iter(self._kept.convolved), iter(self._kept.statistics)
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        for buffer, value in zip(self._buffers, self._before, strict=True):
            buffer.data.copy_(value)  # past autograd, for which they have not changed


def work(weight: Tensor) -> int:
    """Multiply-adds by number that a convolution puts out. (O, C, h, w)"""
    return weight[0].numel()


def _of_batch(args: Sequence[Any]) -> bool:
    """Whether a normalisation is by its batch's own statistics, on a processor."""
    return args[0].device.type == "cpu" and bool(args[5])


def _normalised(args: Sequence[Any], mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A normalisation by statistics that are there: with a variance of 1 and an eps of 0 the running mean and
    the weight stand where the batch's would, so it is the same multiplication and addition, to the bit.
    """
    inputs, weight, bias = args[:3]
    weight = scale if weight is None else weight * scale
    out, *_ = NORMALISATION(inputs, weight, bias, mean, torch.ones_like(mean), False, 0.0, 0.0)
    return out, mean.detach(), scale.detach()
