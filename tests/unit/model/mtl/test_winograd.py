"""The 3x3 convolution has torch's result to the bit, and its gradients from Winograd's products."""

import pytest
import torch
from torch import Tensor, nn

from model.mtl import winograd
from model.mtl.convolutions import stand_in, use_fast_gradients
from model.mtl.encoders import DilatedResNet50
from model.mtl.heads import deeplab_head
from model.mtl.winograd import WinogradConv2d, in_tiles

SIZES = [(8, 12), (7, 5), (1, 1), (3, 16)]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much of the tiles lies beyond the map."""
    monkeypatch.setattr(winograd, "MOST_PADDING", 1e9)


def layer(dilation: int = 1, dtype: torch.dtype = torch.float64) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 5, 3, padding=dilation, dilation=dilation, bias=False).to(dtype)


def run(convolution: nn.Conv2d, size: tuple[int, int], wanted: bool = True) -> list[Tensor | None]:
    convolution.zero_grad()
    numbers = torch.Generator().manual_seed(1)
    image = torch.randn(2, 3, *size, generator=numbers).to(convolution.weight.dtype)
    image.requires_grad_(wanted)
    out = convolution(image)
    out.backward(torch.randn(out.shape, generator=numbers).to(out.dtype))
    return [out.detach(), image.grad, convolution.weight.grad]


def by_winograd(convolution: nn.Conv2d) -> nn.Conv2d:
    return stand_in(convolution, WinogradConv2d)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_result_and_gradients(size: tuple[int, int], dilation: int) -> None:
    (expected, *theirs), (found, *ours) = (
        run(each, size) for each in (layer(dilation), by_winograd(layer(dilation)))
    )
    assert torch.equal(found, expected)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_gradient_is_winograds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not torch's own: without its matrix there is another."""
    right = run(by_winograd(layer()), (6, 6))
    monkeypatch.setattr(winograd, "G", ((0.0,) * 3,) * 4)
    wrong = run(by_winograd(layer()), (6, 6))
    assert torch.equal(wrong[0], right[0])
    assert not wrong[1].any() and not wrong[2].any() and right[1].any() and right[2].any()


def test_image_that_wants_no_gradient() -> None:
    expected, found = (run(each, (6, 4), wanted=False) for each in (layer(), by_winograd(layer())))
    assert found[1] is None
    torch.testing.assert_close(found[2], expected[2])


def test_rounding_is_small() -> None:
    exact, found = run(layer(), (36, 48)), run(by_winograd(layer(dtype=torch.float32)), (36, 48))
    for one, other in zip(found[1:], exact[1:], strict=True):
        assert (one - other).norm() < 2e-6 * other.norm()


@pytest.mark.parametrize("order", [(0, 1, 3, 2), (0, 3, 1, 2), (1, 0, 2, 3)])
def test_inputs_that_lie_otherwise_in_memory(order: tuple[int, ...]) -> None:
    there = torch.randn(3, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = []
    for each in (layer(), by_winograd(layer())):
        image = there.permute(order).requires_grad_()
        each(image).sin().sum().backward()
        found.append(image.grad)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_frozen_weight() -> None:
    expected, found = (run(each.requires_grad_(False), (6, 4)) for each in (layer(), by_winograd(layer())))
    assert found[2] is None
    torch.testing.assert_close(found[1], expected[1])


def test_gradient_of_the_gradient_is_refused() -> None:
    image = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(by_winograd(layer())(image).sin().sum(), image, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_torchs_own_for_16_bits_and_little_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd._Convolution, "apply", None)
    one = by_winograd(layer(dtype=torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        assert one(torch.randn(1, 3, 4, 4)).dtype == torch.bfloat16
    assert by_winograd(layer(dtype=torch.bfloat16))(torch.randn(1, 3, 4, 4).bfloat16()).shape == (1, 5, 4, 4)
    assert one(torch.randn(3, 4, 4)).shape == (5, 4, 4) and one(torch.randn(0, 3, 4, 4)).shape == (0, 5, 4, 4)
    assert one(torch.randn(1, 3, 4, 4).to(memory_format=torch.channels_last)).shape == (1, 5, 4, 4)
    monkeypatch.setattr(winograd, "MOST_PADDING", 1.25)
    assert one(torch.randn(1, 3, 5, 5)).shape == (1, 5, 5, 5)


def test_pixels_in_tiles() -> None:
    assert in_tiles(torch.empty(1, 1, 36, 48), 2) == 1
    assert in_tiles(torch.empty(1, 1, 36, 48), 4) == pytest.approx(40 / 36)
    assert in_tiles(torch.empty(1, 1, 5, 4), 1) == 1.2


def test_where_it_is_used() -> None:
    with torch.device("meta"):
        count = {
            model: sum(isinstance(part, WinogradConv2d) for part in model.modules())
            for model in (DilatedResNet50(), deeplab_head(2048, 13), deeplab_head(64, 13, hidden=48))
        }
    assert list(count.values()) == [9, 4, 0]


def test_a_layer_that_it_cannot_stand_for_is_refused() -> None:
    for other in (nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1, stride=2, bias=False)):
        with pytest.raises(ValueError, match="WinogradConv2d cannot stand for it"):
            by_winograd(other)


def test_other_layers_are_left_alone() -> None:
    wide = {"in_channels": 256, "out_channels": 256, "kernel_size": 3, "bias": False}
    others = (
        nn.Conv2d(**wide),
        nn.Conv2d(**wide, padding=1, stride=2),
        nn.Conv2d(**wide, padding=1, dilation=2),
        nn.Conv2d(**wide, padding=1, padding_mode="reflect"),
        nn.Conv2d(**wide, padding=1, groups=2),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.Conv2d(128, 256, 3, padding=1, bias=False),
    )
    model = nn.Sequential(*others)
    use_fast_gradients(model)
    assert tuple(model) == others
