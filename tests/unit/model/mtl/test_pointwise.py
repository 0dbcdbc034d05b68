"""The 1x1 convolution has torch's result to the bit and its gradients."""

import pytest
import torch
from torch import Tensor, nn

from model.mtl.convolutions import stand_in, use_fast_gradients
from model.mtl.encoders import DilatedResNet50
from model.mtl.pointwise import PointwiseConv2d


def run(layer: nn.Conv2d, layout: torch.memory_format, wanted: bool) -> list[Tensor | None]:
    layer.zero_grad()
    image = torch.randn(3, 5, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    image = image.to(memory_format=layout).requires_grad_(wanted)
    out = layer(image)
    (out * torch.arange(out.numel()).view(out.shape).sin()).sum().backward()
    return [out.detach(), image.grad, layer.weight.grad]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("wanted", [True, False])
def test_result_and_gradients(layout: torch.memory_format, wanted: bool) -> None:
    layer = nn.Conv2d(5, 7, 1, bias=False).double().to(memory_format=layout)
    (expected, *theirs), (found, *ours) = (
        run(each, layout, wanted) for each in (layer, stand_in(layer, PointwiseConv2d))
    )
    assert torch.equal(found, expected) and found.stride() == expected.stride()
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None) == (not wanted and other is None)
        if other is not None:
            torch.testing.assert_close(one, other)


def test_autocast() -> None:
    layer = stand_in(nn.Conv2d(3, 4, 1, bias=False), PointwiseConv2d)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(torch.randn(1, 3, 2, 2))
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_other_layers_are_left_alone() -> None:
    others = (nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, bias=False), nn.Conv2d(4, 4, 1, 2, bias=False))
    model = nn.Sequential(*others)
    use_fast_gradients(model)
    assert tuple(model) == others
    for layer in others:
        with pytest.raises(ValueError, match="PointwiseConv2d cannot stand for it"):
            stand_in(layer, PointwiseConv2d)


def test_the_encoder_uses_it() -> None:
    with torch.device("meta"):
        encoder = DilatedResNet50()
    assert sum(isinstance(layer, PointwiseConv2d) for layer in encoder.modules()) == 2 * 16 + 3
