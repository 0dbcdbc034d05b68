"""Faster forms of the backbone's modules for training on a CPU: same parameters, same results up to rounding.

An object takes the fast form by changing its class, and its own again before it is stored.

Letters: B batch, N tokens, W width, H heads, d head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from model.encoders.beats import PositionalConv

ATTENTION = "tiny_backbone_attention"


def plain_attention(
    module: nn.Module,
    query_BHNd: Tensor,
    key_BHNd: Tensor,
    value_BHNd: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention without conversions to float32; the gradient of torch's fused attention is slow on a CPU."""
    scores = query_BHNd * (scaling or query_BHNd.shape[-1] ** -0.5) @ key_BHNd.transpose(-1, -2)
    if attention_mask is not None:
        scores = scores + attention_mask
    return (scores.softmax(-1) @ value_BHNd).transpose(1, 2).contiguous(), None


def register_attention() -> str:
    """Make `plain_attention` known to transformers; returns its name."""
    AttentionInterface.register(ATTENTION, plain_attention)
    return ATTENTION


class FastPositionalConv(PositionalConv):
    """A depthwise `PositionalConv` by one matrix product per channel: its gradient as a convolution takes
    longer than all the rest of the tower.
    """

    def forward(self, x_BNW: Tensor) -> Tensor:
        n, middle = x_BNW.shape[1], self.kernel // 2
        weight = self.weight()
        i = torch.arange(n)
        tap = i[:, None] - i[None, :] + middle  # input place - output place + middle: (N in, N out)
        inside = (tap >= 0) & (tap < self.kernel)
        toeplitz = weight[:, 0][:, tap.clamp(0, self.kernel - 1)] * inside  # (W, N, N)
        y_WBN = torch.bmm(x_BNW.permute(2, 0, 1), toeplitz)
        return F.gelu(y_WBN.permute(1, 2, 0) + self.bias)


class FastPatches(nn.Conv2d):
    """A convolution with stride = kernel as one matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        side = self.kernel_size[0]
        b, c, h, w = x.shape
        rows = x.view(b, c, h // side, side, w // side, side).permute(0, 2, 4, 1, 3, 5).flatten(3)
        return F.linear(rows, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class FastNorm(nn.Module):
    """RMSNorm as one call, for LlamaRMSNorm objects."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon)
