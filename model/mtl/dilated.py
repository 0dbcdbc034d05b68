"""Dilated convolution over only the taps that reach the map; exact.

With dilation d a 3x3 kernel looks d pixels up, down, left and right. On a map of H x W pixels the tap at
offset (dy, dx) meets (H - |dy|)+ (W - |dx|)+ of the H W output pixels, elsewhere it multiplies padding zeros.
Heads with dilations 12, 24, 36 on maps of 36 x 48 (images of 288 x 384 at an eighth) so waste 60 % of their
work, on 18 x 24 over 80 %.

    out[y, x] = sum over taps (i, j) of W_ij in[y + (i - c) d, x + (j - c) d], each over its own rectangle

The map is cut where a step of d from its edges leads, and again from there. Then every tap moves whole blocks
onto whole blocks, and with a block's pixels side by side in memory it is a few matrix products that add up in
place.

Legend: B batch, C input and O output channels, H, W pixels, P = B H W.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

WORTH = 0.75  # share of the full work below which going tap by tap is faster


class Piece(NamedTuple):
    """Pixels that a tap reads and writes in one go; places in the order of `to_blocks`, of one image."""

    write: int
    read: int
    pixels: int


def reach(size: int, offset: int) -> tuple[int, int]:
    """Start and end of what a tap writes along one axis; empty where it misses the map."""
    start = max(-offset, 0)
    return start, max(min(size, size - offset), start)


def cuts(size: int, step: int) -> list[int]:
    """Where an axis is cut: multiples of the step from both ends."""
    return sorted({place for k in range(0, size + 1, step) for place in (k, size - k)})


def taps(
    height: int, width: int, kernel: tuple[int, int], dilation: tuple[int, int]
) -> Iterator[tuple[int, int, list[Piece]]]:
    """(i, j) of each tap that reaches the map, and its pieces; the centre, which covers all, first."""
    middle = (kernel[0] // 2, kernel[1] // 2)
    rows = list(pairwise(cuts(height, dilation[0])))
    for i, j in sorted(product(range(kernel[0]), range(kernel[1])), key=lambda place: place != middle):
        dy, dx = (i - middle[0]) * dilation[0], (j - middle[1]) * dilation[1]
        (top, bottom), (left, right) = reach(height, dy), reach(width, dx)
        if bottom == top or right == left:
            continue
        bands = [(top, bottom)] if dx == 0 else [(a, b) for a, b in rows if top <= a and b <= bottom]
        yield (
            i,
            j,
            [
                Piece(
                    a * width + (b - a) * left,
                    (a + dy) * width + (b - a) * (left + dx),
                    (b - a) * (right - left),
                )
                for a, b in bands
            ],
        )


def share_of_work(height: int, width: int, kernel: tuple[int, int], dilation: tuple[int, int]) -> float:
    """Pixels met by the taps, over those of a full convolution."""
    met = sum(piece.pixels for *_, pieces in taps(height, width, kernel, dilation) for piece in pieces)
    return met / (kernel[0] * kernel[1] * height * width)


def blocks(height: int, width: int, dilation: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each block, in their order in memory."""
    for top, bottom in pairwise(cuts(height, dilation[0])):
        for left, right in pairwise(cuts(width, dilation[1])):
            yield slice(top, bottom), slice(left, right)


def to_blocks(image: Tensor, dilation: tuple[int, int]) -> Tensor:
    """Pixels in rows, those of a block, of all images, side by side. (B, C, H, W) -> (P, C)"""
    batch, channels, height, width = image.shape
    rows, start = image.new_empty(batch * height * width, channels), 0
    for across, along in blocks(height, width, dilation):
        block = image[:, :, across, along].permute(0, 2, 3, 1)  # (B, h, w, C)
        stop = start + batch * block.shape[1] * block.shape[2]
        rows[start:stop].view(block.shape).copy_(block)
        start = stop
    return rows


def from_blocks(rows: Tensor, batch: int, height: int, width: int, dilation: tuple[int, int]) -> Tensor:
    """The way back; channels last in memory. (P, C) -> (B, C, H, W)"""
    image, start = rows.new_empty(batch, height, width, rows.shape[1]), 0
    for across, along in blocks(height, width, dilation):
        block = image[:, across, along]  # (B, h, w, C)
        stop = start + batch * block.shape[1] * block.shape[2]
        block.copy_(rows[start:stop].view(block.shape))
        start = stop
    return image.permute(0, 3, 1, 2)


class _TapConvolution(torch.autograd.Function):
    """The sum over taps as matrix products; saves input and weight only."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.dilation = dilation
        batch, _, height, width = inputs.shape
        rows = to_blocks(inputs, dilation)
        out = rows.new_zeros(len(rows), len(weight))
        for i, j, pieces in taps(height, width, weight.shape[2:], dilation):  # type: ignore[arg-type]
            for piece in pieces:
                read, write = _spans(piece, batch)
                add_product(out[write], rows[read], weight[:, :, i, j].t())
        return from_blocks(out, batch, height, width, dilation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        inputs, weight = ctx.saved_tensors
        batch, _, height, width = inputs.shape
        rows, grad_out = to_blocks(inputs, ctx.dilation), to_blocks(gradients[0], ctx.dilation)
        grad_rows, grad_weight = torch.zeros_like(rows), torch.zeros_like(weight)
        for i, j, pieces in taps(height, width, weight.shape[2:], ctx.dilation):  # type: ignore[arg-type]
            for piece in pieces:
                read, write = _spans(piece, batch)
                add_product(grad_rows[read], grad_out[write], weight[:, :, i, j])
                add_product(grad_weight[:, :, i, j], grad_out[write].t(), rows[read])
        del rows, grad_out  # before the way back takes as much again
        return from_blocks(grad_rows, batch, height, width, ctx.dilation), grad_weight, None


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in place."""
    torch.addmm(total, left, right, out=total)


def _spans(piece: Piece, batch: int) -> tuple[slice, slice]:
    """Rows that are read, and rows that are written."""
    return tuple(slice(batch * start, batch * (start + piece.pixels)) for start in (piece.read, piece.write))  # type: ignore[return-value]


class ReachingConv2d(nn.Conv2d):
    """nn.Conv2d that leaves out the taps beyond the map where that is faster; same parameters and results.

    Its weight lies in memory with channels last.
    """

    @classmethod
    def like(cls, layer: nn.Conv2d) -> ReachingConv2d:
        """The same layer with the same parameters. Raises ValueError unless it keeps the map's size."""
        same = tuple(d * (k // 2) for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        if layer.stride != (1, 1) or layer.groups != 1 or layer.padding != same:
            raise ValueError(f"{layer}: expected stride 1, one group and padding {same}")
        new = cls.__new__(cls)
        new.__dict__ = layer.__dict__
        new.to(memory_format=torch.channels_last)  # a tap's weights side by side
        return new

    def forward(self, inputs: Tensor) -> Tensor:
        kernel, dilation = tuple(self.kernel_size), tuple(self.dilation)
        if share_of_work(inputs.shape[2], inputs.shape[3], kernel, dilation) > WORTH:  # type: ignore[arg-type]
            return super().forward(inputs)
        weight, device = self.weight, inputs.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            narrow = torch.get_autocast_dtype(device)
            inputs, weight = inputs.to(narrow), weight.to(narrow)
        out = _TapConvolution.apply(inputs, weight, dilation)
        return out if self.bias is None else out + self.bias.to(out.dtype)[:, None, None]
