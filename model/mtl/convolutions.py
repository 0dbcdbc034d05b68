"""Which convolutions of a model take gradients of our own on a processor."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from model.mtl.pointwise import PointwiseConv2d, is_pointwise
from model.mtl.winograd import WinogradConv2d, is_winograd

KINDS: tuple[tuple[type[nn.Conv2d], Callable[[nn.Module], bool]], ...] = (
    (PointwiseConv2d, is_pointwise),
    (WinogradConv2d, is_winograd),
)


def use_fast_gradients(model: nn.Module) -> None:
    """Put our kinds in place of all convolutions that they can stand for: the same parameters and results."""
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            for kind, fits in KINDS:
                if type(layer) is nn.Conv2d and fits(layer):
                    setattr(parent, name, stand_in(layer, kind))


def stand_in(layer: nn.Conv2d, kind: type[nn.Conv2d]) -> nn.Conv2d:
    """A layer of this kind with the parameters and settings of another."""
    new = kind.__new__(kind)
    new.__dict__ = layer.__dict__
    return new
