"""3x3 convolution whose gradients on a processor take 16 multiplications for 36.

Winograd's minimal filtering F(2x2, 3x3): of a 4x4 tile d of the map and a kernel w the 2x2 results are

    A^T [(G w G^T) * (B^T d B)] A

with the matrices of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016): one
elementwise product, which over channels is a batch of 16 matrix products. The gradients are this formula's:

    m = A g A^T
    dW = G^T [sum over tiles of (B^T d B) * m] G
    dd = B [(G w G^T) * m] B^T, added up where tiles overlap

The result is torch's own, to the bit: rounding in the backward pass cannot turn a unit of a ReLU on or off.
A convolution with dilation d is d x d convolutions without, each of every d-th row and column.

Legend: B images, C input and O output channels, N = B times dilation squared, h x w tiles of a map.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.mtl.pointwise import channels_last

LEAST_CHANNELS = 256  # from which on laying out tiles costs less than is saved
MOST_PADDING = 1.25  # pixels in tiles by pixel of the map up to which it does
G = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.dilation = dilation
        return torch.conv2d(inputs, weight, padding=dilation, dilation=dilation)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        inputs, weight = ctx.saved_tensors
        spread = spread_tiles(to_grids(gradients[0], ctx.dilation, border=0))
        rows, grad_inputs, grad_weight = spread.view(16, -1, len(weight)), None, None
        if ctx.needs_input_grad[1]:
            tiles = cut_tiles(to_grids(inputs, ctx.dilation, border=1)).view(16, -1, inputs.shape[1])
            grad_weight = _kernel_gradient(torch.bmm(tiles.transpose(1, 2), rows))
            del tiles
        if ctx.needs_input_grad[0]:
            tiles = torch.bmm(rows, _transformed(weight)).view(*spread.shape[:-1], inputs.shape[1])
            del spread, rows
            grad_inputs = from_grids(add_tiles(tiles), inputs.shape, ctx.dilation)
        return grad_inputs, grad_weight, None


def to_grids(image: Tensor, dilation: int, border: int) -> Tensor:
    """Every d-th row and column as an image of its own, channels last, with zeros up to an even size and in a
    border. (B, C, H, W) -> (N, 2h + 2 border, 2w + 2 border, C)
    """
    batch, channels, height, width = image.shape
    high, wide = (_even(size, dilation) + 2 * border for size in (height, width))
    grids = image.new_zeros(batch, dilation, dilation, high, wide, channels)
    for number, pixels in enumerate(image):
        rows = pixels.flatten(1).t().contiguous().view(height, width, channels)
        for i, j, piece in _pieces(rows, dilation):
            grids[number, i, j, border:, border:][: piece.shape[0], : piece.shape[1]] = piece
    return grids.flatten(0, 2)


def from_grids(grids: Tensor, shape: torch.Size, dilation: int) -> Tensor:
    """The way back, from grids without a border. (N, 2h, 2w, C) -> shape (B, C, H, W)"""
    batch, channels, height, width = shape
    image, rows = grids.new_empty(shape), grids.new_empty(height, width, channels)
    for pixels, grid in zip(image, grids.unflatten(0, (batch, dilation, dilation)), strict=True):
        for i, j, piece in _pieces(rows, dilation):
            piece.copy_(grid[i, j, : piece.shape[0], : piece.shape[1]])
        pixels.flatten(1).copy_(rows.flatten(0, 1).t())
    return image


def _pieces(rows: Tensor, dilation: int) -> list[tuple[int, int, Tensor]]:
    """Views of every d-th row and column, by where they start."""
    return [(i, j, rows[i::dilation, j::dilation]) for i in range(dilation) for j in range(dilation)]


def cut_tiles(grids: Tensor) -> Tensor:
    """B^T d B of all tiles, which overlap. (N, 2h + 2, 2w + 2, C) -> (4, 4, N, h, w, C)"""
    count, height, width, channels = grids.shape
    tiles = grids.new_empty(4, 4, count, height // 2 - 1, width // 2 - 1, channels)
    rows = [grids[:, i : height - 3 + i : 2] for i in range(4)]
    pairs = ((0, 2, -1), (1, 2, 1), (2, 1, -1), (1, 3, -1))
    for place, (first, second, sign) in zip(tiles, pairs, strict=True):
        row = torch.add(rows[first], rows[second], alpha=sign)
        one, two, three, four = (row[:, :, i : width - 3 + i : 2] for i in range(4))
        torch.sub(one, three, out=place[0])
        torch.add(two, three, out=place[1])
        torch.sub(three, two, out=place[2])
        torch.sub(two, four, out=place[3])
    return tiles


def spread_tiles(grids: Tensor) -> Tensor:
    """A g A^T of all 2x2 tiles, which do not overlap. (N, 2h, 2w, O) -> (4, 4, N, h, w, O)"""
    count, height, width, channels = grids.shape
    tiles = grids.new_empty(4, 4, count, height // 2, width // 2, channels)
    upper, lower = grids[:, 0::2], grids[:, 1::2]
    for place, row in zip(tiles, (upper, upper + lower, upper - lower, -lower), strict=True):
        left, right = row[:, :, 0::2], row[:, :, 1::2]
        place[0].copy_(left)
        torch.add(left, right, out=place[1])
        torch.sub(left, right, out=place[2])
        torch.neg(right, out=place[3])
    return tiles


def add_tiles(tiles: Tensor) -> Tensor:
    """B m B^T of all tiles, added where they overlap, without the border.
    (4, 4, N, h, w, C) -> (N, 2h, 2w, C)
    """
    _, columns, count, high, wide, channels = tiles.shape
    rows = tiles.new_empty(columns, count, 2 * high, wide, channels)
    _add_overlapping(tiles.flatten(-2), rows.flatten(-2))
    grids = tiles.new_empty(count, 2 * high, 2 * wide, channels)
    _add_overlapping(rows, grids)
    return grids


def _add_overlapping(parts: Tensor, out: Tensor) -> None:
    """Write B m along the last axis but one. (4, ..., n, C) -> (..., 2n, C)"""
    first, second, third, fourth = parts
    even, odd = out[..., 0::2, :], out[..., 1::2, :]
    torch.sub(second, third, out=even).add_(fourth)
    even[..., 1:, :] -= fourth[..., :-1, :]
    torch.add(second, third, out=odd).sub_(first)
    odd[..., :-1, :] += first[..., 1:, :]


def _kernel_gradient(products: Tensor) -> Tensor:
    """G^T u G. (16, C, O) -> (O, C, 3, 3)"""
    kernels = _both_axes(products).t() @ products.flatten(1)
    return kernels.view(3, 3, *products.shape[1:]).permute(3, 2, 0, 1).contiguous()


def _transformed(weight: Tensor) -> Tensor:
    """G w G^T. (O, C, 3, 3) -> (16, O, C)"""
    kernels = weight.permute(2, 3, 0, 1).reshape(9, -1)
    return (_both_axes(weight) @ kernels).view(16, *weight.shape[:2])


def _both_axes(like: Tensor) -> Tensor:
    """G for rows and columns at once. (16, 9)"""
    matrix = like.new_tensor(G)
    return torch.kron(matrix, matrix)


def _even(size: int, dilation: int) -> int:
    """Every d-th of so many pixels, filled up to an even number."""
    return 2 * -(-size // (2 * dilation))


class WinogradConv2d(nn.Conv2d):
    """nn.Conv2d of kernel 3 and stride 1 that keeps the map's size, without bias: the same parameters and
    result, and, on a processor in 32 or 64 bits, the same gradient but for rounding, which can be taken once
    (not differentiated again) and by autograd alone (not by torch.func).
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, H, W)"""
        narrow = torch.is_autocast_enabled("cpu") or inputs.dtype not in (torch.float32, torch.float64)
        elsewhere = inputs.device.type != "cpu" or inputs.ndim != 4 or not inputs.numel()
        if narrow or elsewhere or channels_last(inputs) or in_tiles(inputs, self.dilation[0]) > MOST_PADDING:
            return super().forward(inputs)
        return _Convolution.apply(inputs, self.weight, self.dilation[0])


def in_tiles(image: Tensor, dilation: int) -> float:
    """Pixels in tiles by pixel of a map. (B, C, H, W)"""
    height, width = (_even(size, dilation) * dilation / size for size in image.shape[2:])
    return height * width


def can_be_winograd(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a convolution for which `WinogradConv2d` can stand."""
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.stride) == ((3, 3), (1, 1))
        and layer.dilation[0] == layer.dilation[1]
        and layer.padding == layer.dilation
        and layer.padding_mode == "zeros"
        and layer.groups == 1
        and layer.bias is None
    )


def worth_winograd(layer: nn.Module) -> bool:
    """Whether it can, and has channels enough to be faster."""
    return can_be_winograd(layer) and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS
