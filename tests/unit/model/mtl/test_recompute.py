"""What is made again is the same to the bit, in every type and layout."""

import pytest
import torch
from torch import nn

from model.mtl.recompute import lean


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_normalisations_made_again(dtype: torch.dtype, layout: torch.memory_format, affine: bool) -> None:
    """Convolution, normalisation and ReLU on maps with offsets; wide enough for the vectorised loops."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(5, 37, 3, padding=1)
    normalisation = nn.BatchNorm2d(37, eps=1e-3, momentum=0.3, affine=affine)
    if affine:
        nn.init.normal_(normalisation.weight), nn.init.normal_(normalisation.bias)
    stage = nn.Sequential(convolution, normalisation, nn.ReLU(), nn.Conv2d(37, 3, 1)).to(memory_format=layout)
    stage = stage.double() if dtype == torch.float64 else stage
    image = (3 + 5 * torch.randn(4, 5, 19, 23)).to(memory_format=layout).to(next(stage.parameters()).dtype)
    found = []
    for again in (False, True):
        stage.zero_grad()
        normalisation.reset_running_stats()
        leaf = image.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = lean(stage, leaf, dear=1) if again else stage(leaf)
        out.square().sum().backward()
        found.append([out, leaf.grad, *(p.grad for p in stage.parameters()), *stage.buffers()])
        found[-1] = [tensor.detach().clone() for tensor in found[-1]]
    for kept, made in zip(*found, strict=True):
        assert torch.equal(kept, made)
