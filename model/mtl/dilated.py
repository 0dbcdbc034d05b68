"""Dilated convolution over only the taps that reach the map; exact. On small maps backward only.

With dilation d a 3x3 kernel looks d pixels up, down, left and right. On a map of H x W pixels the tap at
offset (dy, dx) meets (H - |dy|)+ (W - |dx|)+ of the H W output pixels, elsewhere it multiplies padding zeros.
Heads with dilations 12, 24, 36 on maps of 36 x 48 (images of 288 x 384 at an eighth) so waste 60 % of their
work, on 18 x 24 over 80 %.

    out[y, x] = sum over taps (i, j) of W_ij in[y + (i - c) d, x + (j - c) d], each over its own rectangle

The map is cut where a step of d from its edges leads, and again from there. Then every tap moves whole blocks
onto whole blocks, and with a block's pixels side by side in memory it is a few matrix products that add up in
place. Cut by the greatest common divisor of several dilations the blocks serve them all, so that a pyramid of
convolutions reads its map once, and writes the map's gradient once.

Legend: B batch, C input and O output channels, H, W pixels, P = B H W; step: where the map is cut, by axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.mtl.pointwise import channels_last

WORTH = 0.75  # share of the full work below which going tap by tap is faster
SMALL = 1000  # pixels of a map below which the forward pass goes over all taps, see `to_the_bit`
Pair = tuple[int, int]


class Piece(NamedTuple):
    """Pixels that a tap reads and writes in one go; places in the order of `to_blocks`, of one image."""

    write: int
    read: int
    pixels: int


def reach(size: int, offset: int) -> Pair:
    """Start and end of what a tap writes along one axis; empty where it misses the map."""
    start = max(-offset, 0)
    return start, max(min(size, size - offset), start)


def cuts(size: int, step: int) -> list[int]:
    """Where an axis is cut: multiples of the step from both ends."""
    return sorted({place for k in range(0, size + 1, step) for place in (k, size - k)})


def taps(
    height: int, width: int, kernel: Pair, dilation: Pair, step: Pair
) -> Iterator[tuple[int, int, list[Piece]]]:
    """(i, j) of each tap that reaches the map, and its pieces; the centre, which covers all, first.

    step: divides the dilation.
    """
    middle = (kernel[0] // 2, kernel[1] // 2)
    rows = list(pairwise(cuts(height, step[0])))
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


def share_of_work(height: int, width: int, kernel: Pair, dilation: Pair) -> float:
    """Pixels met by the taps, over those of a full convolution."""
    met = sum(
        piece.pixels for *_, pieces in taps(height, width, kernel, dilation, dilation) for piece in pieces
    )
    return met / (kernel[0] * kernel[1] * height * width)


def blocks(image: Tensor, step: Pair) -> Iterator[Tensor]:
    """Views of an image's blocks, in their order in memory. (B, C, H, W) -> (B, h, w, C) each"""
    for top, bottom in pairwise(cuts(image.shape[2], step[0])):
        for left, right in pairwise(cuts(image.shape[3], step[1])):
            yield image[:, :, top:bottom, left:right].permute(0, 2, 3, 1)


def to_blocks(image: Tensor, step: Pair) -> Tensor:
    """Pixels in rows, those of a block, of all images, side by side. (B, C, H, W) -> (P, C)"""
    rows, start = image.new_empty(image[:, 0].numel(), image.shape[1]), 0
    for block in blocks(image, step):
        stop = start + block[..., 0].numel()
        rows[start:stop].view(block.shape).copy_(block)
        start = stop
    return rows


def from_blocks(rows: Tensor, image: Tensor, step: Pair) -> Tensor:
    """The way back, into `image`, which is returned. (P, C) -> (B, C, H, W)"""
    start = 0
    for block in blocks(image, step):
        stop = start + block[..., 0].numel()
        block.copy_(rows[start:stop].view(block.shape))
        start = stop
    return image


class _TapConvolutions(torch.autograd.Function):
    """The sums over taps as matrix products, forward too where results need not be torch's to the bit; saves
    input and weights only.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, dilations: Sequence[Pair], *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(inputs, *weights)
        ctx.dilations, ctx.step = dilations, common_step(dilations)
        if to_the_bit(inputs):
            return tuple(
                torch.conv2d(inputs, weight.contiguous(), padding=_same(weight, dilation), dilation=dilation)
                for weight, dilation in zip(weights, dilations, strict=True)
            )
        batch, _, height, width = inputs.shape
        rows, results = to_blocks(inputs, ctx.step), []
        layout = torch.channels_last if channels_last(inputs) else torch.contiguous_format
        for weight, dilation in zip(weights, dilations, strict=True):
            out = rows.new_zeros(len(rows), len(weight))
            for i, j, write, read in _products(inputs, weight, dilation, ctx.step):
                add_product(out[write], rows[read], weight[:, :, i, j].t())
            place = inputs.new_empty(batch, len(weight), height, width).to(memory_format=layout)
            results.append(from_blocks(out, place, ctx.step))
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, *weights = ctx.saved_tensors
        rows, grad_weights = to_blocks(inputs, ctx.step), [torch.zeros_like(weight) for weight in weights]
        grad_rows = torch.zeros_like(rows)
        for number, (weight, dilation) in enumerate(zip(weights, ctx.dilations, strict=True)):
            grad_out, total = to_blocks(gradients[number], ctx.step), grad_weights[number]
            for i, j, write, read in _products(inputs, weight, dilation, ctx.step):
                add_product(grad_rows[read], grad_out[write], weight[:, :, i, j])
                add_product(total[:, :, i, j], grad_out[write].t(), rows[read])
        del rows, grad_out  # before the way back takes as much again
        return from_blocks(grad_rows, torch.empty_like(inputs), ctx.step), None, *grad_weights


def to_the_bit(inputs: Tensor) -> bool:
    """Whether results are torch's own, taps beyond the map included. (B, C, H, W)

    Rounding decides which units of a ReLU are on, and through them the gradient: with torch's results a step
    has torch's gradient. On small maps in fp32 on a processor that costs a twentieth of a step.
    """
    wide = inputs.dtype in (torch.float32, torch.float64)
    small = inputs.shape[2] * inputs.shape[3] < SMALL
    return wide and small and inputs.device.type == "cpu" and not channels_last(inputs)


def _same(weight: Tensor, dilation: Pair) -> Pair:
    """Padding that keeps a map's size. (O, C, h, w)"""
    return dilation[0] * (weight.shape[2] // 2), dilation[1] * (weight.shape[3] // 2)


def _products(
    inputs: Tensor, weight: Tensor, dilation: Pair, step: Pair
) -> Iterator[tuple[int, int, slice, slice]]:
    """Tap, rows that it writes, rows that it reads, for each matrix product of a convolution."""
    batch, _, height, width = inputs.shape
    kernel: Pair = (weight.shape[2], weight.shape[3])
    for i, j, pieces in taps(height, width, kernel, dilation, step):
        for write, read, pixels in pieces:
            yield i, j, *(slice(batch * start, batch * (start + pixels)) for start in (write, read))  # type: ignore[misc]


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in place."""
    torch.addmm(total, left, right, out=total)


def common_step(dilations: Sequence[Pair]) -> Pair:
    """Greatest common divisor by axis."""
    return gcd(*(vertical for vertical, _ in dilations)), gcd(*(across for _, across in dilations))


def convolve(inputs: Tensor, layers: Sequence[nn.Conv2d]) -> list[Tensor]:
    """[layer(inputs) for layer in layers]; those in one go that are faster without the taps beyond the map.

    Raises:
        ValueError: a layer that does not keep the map's size, has groups or a bias.
    """
    for layer in layers:
        same = _same(layer.weight, layer.dilation)  # type: ignore[arg-type]
        if layer.stride != (1, 1) or layer.groups != 1 or layer.padding != same or layer.bias is not None:
            raise ValueError(f"{layer}: expected stride 1, one group, padding {same} and no bias")
    height, width = inputs.shape[2:]
    chosen = [
        layer
        for layer in layers
        if share_of_work(height, width, layer.kernel_size, layer.dilation) <= WORTH  # type: ignore[arg-type]
    ]
    if not chosen:
        return [layer(inputs) for layer in layers]
    weights, narrow, device = [layer.weight for layer in chosen], inputs, inputs.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        narrow, weights = inputs.to(dtype), [weight.to(dtype) for weight in weights]
    together = _TapConvolutions.apply(narrow, [layer.dilation for layer in chosen], *weights)
    found = dict(zip(chosen, together, strict=True))
    return [found[layer] if layer in found else layer(inputs) for layer in layers]
