"""Heads of dense tasks, and resizing of what they put out."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from model.mtl.dilated import ReachingConv2d

DILATIONS = (12, 24, 36)
HIDDEN = 256


def deeplab_head(inputs: int, outputs: int, hidden: int = HIDDEN) -> nn.Sequential:
    """DeepLabv3 head (ASPP with dilations 12, 24, 36) in torchvision's layout; its dilated convolutions leave
    out the taps beyond the map. (B, inputs, h, w) -> (B, outputs, h, w)

    hidden: channels of its layers; 256 in torchvision's DeepLabHead.
    """
    pyramid = ASPP(inputs, DILATIONS, hidden)
    for branch in pyramid.convs[1:4]:
        branch[0] = ReachingConv2d.like(branch[0])
    return nn.Sequential(
        pyramid,
        nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, outputs, 1),
    )


def to_image(outputs: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a head's output to the image, bilinear with aligned corners. (B, C, h, w) -> (B, C, *size)"""
    return F.interpolate(outputs, size, mode="bilinear", align_corners=True)
