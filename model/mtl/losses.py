"""Losses of dense tasks. Where nothing was measured a loss is 0, never NaN.

Legend: B batch, C classes, H and W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -1  # label of pixels without a class


def measured(target: Tensor) -> Tensor:
    """Pixels with a measurement: finite, and channels that do not sum to 0. (B, C, H, W) -> (B, 1, H, W)"""
    total = target.sum(1, keepdim=True)
    return (total != 0) & torch.isfinite(total)


def segmentation_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, mean over the pixels whose label is not -1. scores (B, C, H, W), labels (B, H, W)"""
    labels = labels.long()
    total = F.cross_entropy(scores, labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


def depth_loss(depth: Tensor, target: Tensor) -> Tensor:
    """Absolute error, mean over the measured pixels. Both (B, 1, H, W), metres"""
    mask = measured(target)
    return torch.where(mask, (depth - target).abs(), 0.0).sum() / mask.sum().clamp(min=1)


def normal_loss(normals: Tensor, target: Tensor) -> Tensor:
    """1 - mean over the measured pixels of the dot product of unit prediction and target. Both (B, 3, H, W)

    0 where no pixel is measured.
    """
    mask = measured(target)
    dots = (F.normalize(normals, dim=1) * torch.where(mask, target, 0.0)).sum(1)
    count = mask.sum()
    return (count > 0).to(dots) - dots.sum() / count.clamp(min=1)
