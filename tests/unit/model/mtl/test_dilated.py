"""Convolution over the taps that reach the map is the convolution."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model.mtl.dilated import ReachingConv2d, cuts, from_blocks, share_of_work, to_blocks
from model.mtl.heads import deeplab_head


def both(layer: nn.Conv2d, height: int, width: int, dtype: torch.dtype = torch.float64) -> list:
    found = []
    for module in (layer, ReachingConv2d.like(layer)):
        layer.zero_grad()
        image = torch.randn(2, layer.in_channels, height, width, generator=torch.Generator().manual_seed(0))
        image = image.to(dtype).requires_grad_()
        out = module(image)
        (out * torch.arange(out.numel()).view(out.shape).to(dtype).sin()).sum().backward()
        found.append([out, image.grad, *(p.grad.clone() for p in layer.parameters())])
    return found


@settings(max_examples=25)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    dilation=st.tuples(st.integers(1, 10), st.integers(1, 10)),
    kernel=st.sampled_from([(3, 3), (1, 3), (5, 3)]),
    bias=st.booleans(),
)
def test_outputs_and_gradients(
    height: int, width: int, dilation: tuple[int, int], kernel: tuple[int, int], bias: bool
) -> None:
    padding = tuple(d * (k // 2) for d, k in zip(dilation, kernel, strict=True))
    layer = nn.Conv2d(3, 4, kernel, padding=padding, dilation=dilation, bias=bias).double()
    for expected, ours in zip(*both(layer, height, width), strict=True):
        torch.testing.assert_close(ours, expected)


@given(height=st.integers(1, 9), width=st.integers(1, 9), dilation=st.tuples(*2 * [st.integers(1, 10)]))
def test_blocks_there_and_back(height: int, width: int, dilation: tuple[int, int]) -> None:
    image = torch.randn(2, 3, height, width)
    rows = to_blocks(image, dilation)
    assert rows.shape == (2 * height * width, 3)
    assert torch.equal(from_blocks(rows, 2, height, width, dilation), image)


def test_cuts() -> None:
    assert cuts(36, 12) == [0, 12, 24, 36]
    assert cuts(18, 12) == [0, 6, 12, 18]
    assert cuts(18, 24) == [0, 18]


def test_share_of_work() -> None:
    assert share_of_work(18, 24, (3, 3), (24, 24)) == 1 / 9
    assert share_of_work(36, 48, (3, 3), (36, 36)) == pytest.approx(1.5 / 9)
    assert share_of_work(1000, 1000, (3, 3), (1, 1)) > 0.99


def test_parameters_are_the_same_objects() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=12, dilation=12)
    assert ReachingConv2d.like(layer).weight is layer.weight


def test_autocast() -> None:
    dense = nn.Conv2d(16, 24, 3, padding=12, dilation=12, bias=False)
    found = []
    for layer in (dense, ReachingConv2d.like(dense)):
        dense.zero_grad()
        image = torch.randn(2, 16, 18, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(image)
        assert out.dtype == torch.bfloat16
        out.float().sin().sum().backward()
        found.append([out.float(), image.grad, dense.weight.grad])
    for expected, ours in zip(*found, strict=True):
        assert (ours - expected).norm() < 0.02 * expected.norm()


def test_other_layers_are_refused() -> None:
    for layer in (nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, groups=2)):
        with pytest.raises(ValueError, match="expected stride 1"):
            ReachingConv2d.like(layer)


def test_the_head_has_torchvisions_layout() -> None:
    head = deeplab_head(8, 5)
    names = set(head.state_dict())
    assert {"0.convs.1.0.weight", "0.project.0.weight", "4.weight", "4.bias"} <= names
    assert sum(isinstance(part, ReachingConv2d) for part in head.modules()) == 3
    assert head(torch.randn(2, 8, 6, 7)).shape == (2, 5, 6, 7)
