"""Which convolutions of a model take gradients of our own on a processor."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from model.mtl.pointwise import PointwiseConv2d, can_be_pointwise
from model.mtl.winograd import WinogradConv2d, can_be_winograd, worth_winograd

CAN_BE: dict[type[nn.Conv2d], Callable[[nn.Module], bool]] = {
    PointwiseConv2d: can_be_pointwise,
    WinogradConv2d: can_be_winograd,
}
KINDS = tuple(CAN_BE)


def use_fast_gradients(model: nn.Module) -> None:
    """Put our kinds in place of the convolutions that gain by it: the same parameters and results."""
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if type(layer) is not nn.Conv2d:
                continue
            if can_be_pointwise(layer):
                setattr(parent, name, stand_in(layer, PointwiseConv2d))
            elif worth_winograd(layer):
                setattr(parent, name, stand_in(layer, WinogradConv2d))


def stand_in(layer: nn.Conv2d, kind: type[nn.Conv2d]) -> nn.Conv2d:
    """A layer of this kind with the parameters and settings of another.

    Raises:
        ValueError: the kind cannot stand for it.
    """
    if not CAN_BE[kind](layer):
        raise ValueError(f"{layer}: {kind.__name__} cannot stand for it; expected {kind.__doc__}")
    new = kind.__new__(kind)
    new.__dict__ = layer.__dict__
    return new
