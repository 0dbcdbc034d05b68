"""Activations that are made again in the backward pass, from the results of the convolutions.

Half of what autograd keeps of an encoder is made between convolutions, by normalisation, ReLU and addition,
in a few percent of its time. A stage run by `lean` keeps its input and what its convolutions put out; in the
backward pass the rest is made again, one stage at a time, by the same operations: the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

CONVOLUTION = torch.ops.aten.convolution.default


def lean(stage: nn.Module, inputs: Tensor, keep: bool = True) -> Tensor:
    """`stage(inputs)` in less memory.

    keep: keep what convolutions put out; otherwise the input only, and convolutions run again as well.
    """
    contexts = partial(_contexts, stage, keep)
    return checkpoint(stage, inputs, use_reentrant=False, context_fn=contexts)


def _contexts(
    stage: nn.Module, keep: bool
) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Around a stage's first pass, and around those that make it again."""
    kept: list[Tensor] = []
    return _Keep(kept) if keep else nullcontext(), _Again(stage, kept)


class _Keep(TorchDispatchMode):
    """Keeps the results of convolutions, in their order."""

    def __init__(self, kept: list[Tensor]) -> None:
        super().__init__()
        self._kept = kept

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is CONVOLUTION:
            self._kept.append(out.detach())  # not out itself, which will hold the graph that holds this list
        return out


class _Again(TorchDispatchMode):
    """Gives kept results in place of the convolutions', and puts the stage's buffers back in the end: running
    statistics must not see a batch twice. May be entered again and again, as a graph that is gone through
    several times does.
    """

    def __init__(self, stage: nn.Module, kept: Sequence[Tensor]) -> None:
        super().__init__()
        self._kept, self._place = kept, 0
        self._buffers = list(stage.buffers())
        self._before: list[Tensor] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if self._kept and func is CONVOLUTION:
            self._place += 1
            return self._kept[self._place - 1].detach()
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> _Again:
        self._before, self._place = [buffer.clone() for buffer in self._buffers], 0
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        for buffer, value in zip(self._buffers, self._before, strict=True):
            buffer.data.copy_(value)  # past autograd, for which they have not changed
