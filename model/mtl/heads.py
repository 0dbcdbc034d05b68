"""Heads of dense tasks, and resizing of what they put out."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from model.mtl.dilated import ReachingConv2d


def deeplab_head(inputs: int, outputs: int) -> nn.Sequential:
    """DeepLabv3 head (ASPP with dilations 12, 24, 36) in torchvision's layout; its dilated convolutions leave
    out the taps beyond the map. (B, inputs, h, w) -> (B, outputs, h, w)
    """
    head = DeepLabHead(inputs, outputs)
    for branch in head[0].convs[1:4]:
        branch[0] = ReachingConv2d.like(branch[0])
    return head


def to_image(outputs: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a head's output to the image, bilinear with aligned corners. (B, C, h, w) -> (B, C, *size)"""
    return F.interpolate(outputs, size, mode="bilinear", align_corners=True)
