"""Heads of dense tasks, and resizing of what they put out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from model.mtl.convolutions import use_fast_gradients
from model.mtl.dilated import convolve

DILATIONS = (12, 24, 36)
HIDDEN = 256


class ReachingASPP(ASPP):
    """torchvision's pyramid (ASPP); the taps of its convolutions that reach the map in one go, see
    model/mtl/dilated.py. Same parameters, same results.
    """

    def __init__(self, inputs: int, dilations: tuple[int, ...], hidden: int) -> None:
        super().__init__(inputs, dilations, hidden)
        for branch in self.dilated():
            branch[0].to(memory_format=torch.channels_last)  # a tap's weights side by side

    def dilated(self) -> list[nn.Sequential]:
        """Convolution, normalisation and ReLU, by dilation."""
        return list(self.convs)[1:-1]  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, hidden, h, w)"""
        branches = self.dilated()
        maps = convolve(x, [branch[0] for branch in branches])  # type: ignore[misc]
        wide = [branch[2](branch[1](out)) for branch, out in zip(branches, maps, strict=True)]
        return self.project(torch.cat([self.convs[0](x), *wide, self.convs[-1](x)], dim=1))


def deeplab_head(inputs: int, outputs: int, hidden: int = HIDDEN) -> nn.Sequential:
    """DeepLabv3 head (ASPP with dilations 12, 24, 36) in torchvision's layout. (B, inputs, h, w) ->
    (B, outputs, h, w)

    hidden: channels of its layers; 256 in torchvision's DeepLabHead.
    """
    head = nn.Sequential(
        ReachingASPP(inputs, DILATIONS, hidden),
        nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, outputs, 1),
    )
    use_fast_gradients(head)
    return head


def to_image(outputs: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a head's output to the image, bilinear with aligned corners. (B, C, h, w) -> (B, C, *size)"""
    return F.interpolate(outputs, size, mode="bilinear", align_corners=True)
