"""Convolution over the taps that reach the map is the convolution."""

from collections.abc import Sequence
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabHead

from model.mtl import dilated
from model.mtl.dilated import convolve, cuts, from_blocks, share_of_work, to_blocks
from model.mtl.heads import ReachingASPP, deeplab_head

Pair = tuple[int, int]


def one_by_one(inputs: Tensor, layers: Sequence[nn.Conv2d]) -> list[Tensor]:
    return [layer(inputs) for layer in layers]


def both(layers: Sequence[nn.Conv2d], height: int, width: int, layout: torch.memory_format) -> list:
    found = []
    for rule in (one_by_one, convolve):
        image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0)).double()
        image = image.to(memory_format=layout).requires_grad_()
        outs = rule(image, layers)
        sum((out * torch.arange(out.numel()).view(out.shape).sin()).sum() for out in outs).backward()
        found.append([*outs, image.grad, *(layer.weight.grad for layer in layers)])
        for layer in layers:
            layer.weight.grad = None
    return found


@settings(max_examples=25)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    dilations=st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=1, max_size=3),
    kernel=st.sampled_from([(3, 3), (1, 3), (5, 3)]),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    small=st.sampled_from([0, 1000]),
)
def test_outputs_and_gradients(
    height: int, width: int, dilations: list[Pair], kernel: Pair, layout: torch.memory_format, small: int
) -> None:
    layers = []
    for number, dilation in enumerate(dilations):
        padding = tuple(d * (k // 2) for d, k in zip(dilation, kernel, strict=True))
        layer = nn.Conv2d(3, 4 + number, kernel, padding=padding, dilation=dilation, bias=False)
        layers.append(layer.double())
    with patch.object(dilated, "SMALL", small):
        pairs = list(zip(*both(layers, height, width, layout), strict=True))
    for expected, ours in pairs:
        torch.testing.assert_close(ours, expected)


def test_small_maps_have_torchs_results_to_the_bit() -> None:
    torch.manual_seed(0)
    pyramid = [nn.Conv2d(96, 8, 3, padding=d, dilation=d, bias=False) for d in (12, 24)]
    for layer in pyramid:
        layer.to(memory_format=torch.channels_last)  # as in ReachingASPP
    image = torch.randn(1, 96, 18, 24)
    assert 18 * 24 < dilated.SMALL
    for layer, out in zip(pyramid, convolve(image, pyramid), strict=True):
        expected = torch.conv2d(
            image, layer.weight.contiguous(), padding=layer.padding, dilation=layer.dilation
        )
        assert torch.equal(out, expected) and out.is_contiguous()


@given(height=st.integers(1, 9), width=st.integers(1, 9), step=st.tuples(*2 * [st.integers(1, 10)]))
def test_blocks_there_and_back(height: int, width: int, step: Pair) -> None:
    image = torch.randn(2, 3, height, width)
    rows = to_blocks(image, step)
    assert rows.shape == (2 * height * width, 3)
    assert torch.equal(from_blocks(rows, torch.empty_like(image), step), image)


def test_cuts() -> None:
    assert cuts(36, 12) == [0, 12, 24, 36]
    assert cuts(18, 12) == [0, 6, 12, 18]
    assert cuts(18, 24) == [0, 18]


def test_share_of_work() -> None:
    assert share_of_work(18, 24, (3, 3), (24, 24)) == 1 / 9
    assert share_of_work(36, 48, (3, 3), (36, 36)) == pytest.approx(1.5 / 9)
    assert share_of_work(1000, 1000, (3, 3), (1, 1)) > 0.99


def test_autocast() -> None:
    dense = nn.Conv2d(16, 24, 3, padding=12, dilation=12, bias=False)
    found = []
    for rule in (one_by_one, convolve):
        dense.zero_grad()
        image = torch.randn(2, 16, 18, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            [out] = rule(image, [dense])
        assert out.dtype == torch.bfloat16
        out.float().sin().sum().backward()
        found.append([out.float(), image.grad, dense.weight.grad])
    for expected, ours in zip(*found, strict=True):
        assert (ours - expected).norm() < 0.02 * expected.norm()


def test_other_layers_are_refused() -> None:
    for layer in (nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, groups=2)):
        with pytest.raises(ValueError, match="expected stride 1"):
            convolve(torch.zeros(1, 4, 6, 6), [layer])


def test_a_pyramid_of_which_some_reach_the_map_well() -> None:
    pyramid, plain = ReachingASPP(5, (1, 12), 4).eval(), ASPP(5, (1, 12), 4).eval()
    plain.load_state_dict(pyramid.state_dict())
    image = torch.randn(2, 5, 14, 18)
    torch.testing.assert_close(pyramid(image), plain(image))


def test_the_head_has_torchvisions_layout() -> None:
    head = deeplab_head(8, 5)
    names = set(head.state_dict())
    assert {"0.convs.1.0.weight", "0.project.0.weight", "4.weight", "4.bias"} <= names
    assert names == set(DeepLabHead(8, 5).state_dict())
    assert head(torch.randn(2, 8, 6, 7)).shape == (2, 5, 6, 7)
