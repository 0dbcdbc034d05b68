"""Dilated convolution over only the taps that reach the map; exact.

With dilation d a 3x3 kernel looks d pixels up, down, left and right. On a map of H x W pixels the tap at
offset (dy, dx) meets (H - |dy|)+ (W - |dx|)+ of the H W output pixels, elsewhere it multiplies padding zeros.
Heads with dilations 12, 24, 36 on maps of 36 x 48 (images of 288 x 384 at an eighth) so waste 60 % of their
work, on 18 x 24 over 80 %.

    out[y, x] = sum over taps (i, j) of W_ij in[y + (i - c) d, x + (j - c) d], each over its own rectangle

Legend: B batch, C input and O output channels, H, W pixels, N pixels of a rectangle.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

WORTH = 0.75  # share of the full work below which going tap by tap is faster
Area = tuple[slice, slice]


def reach(size: int, offset: int) -> tuple[slice, slice]:
    """Where a tap writes, and where it reads, along one axis; empty where it misses the map."""
    length = max(size - abs(offset), 0)
    write, read = max(-offset, 0), max(offset, 0)
    return slice(write, write + length), slice(read, read + length)


def taps(height: int, width: int, kernel: tuple[int, int], dilation: tuple[int, int]) -> Iterator[Any]:
    """(i, j), written area, read area of each tap that reaches the map; the centre first."""
    middle = (kernel[0] // 2, kernel[1] // 2)
    places = sorted(product(range(kernel[0]), range(kernel[1])), key=lambda place: place != middle)
    for i, j in places:
        dy, dx = (i - middle[0]) * dilation[0], (j - middle[1]) * dilation[1]
        if abs(dy) < height and abs(dx) < width:
            (rows_out, rows_in), (cols_out, cols_in) = reach(height, dy), reach(width, dx)
            yield (i, j), (rows_out, cols_out), (rows_in, cols_in)


def share_of_work(height: int, width: int, kernel: tuple[int, int], dilation: tuple[int, int]) -> float:
    """Pixels met by the taps, over those of a full convolution."""
    met = sum(
        (rows.stop - rows.start) * (cols.stop - cols.start)
        for _, (rows, cols), _ in taps(height, width, kernel, dilation)
    )
    return met / (kernel[0] * kernel[1] * height * width)


class _TapConvolution(torch.autograd.Function):
    """The sum over taps as matrix products on channels-last rows; saves input and weight only."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.dilation = dilation
        rows = inputs.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C)
        batch, height, width, _ = rows.shape
        out = rows.new_zeros(batch, height, width, len(weight))
        for (i, j), write, read in taps(height, width, weight.shape[2:], dilation):  # type: ignore[arg-type]
            out[:, write[0], write[1]] += rows[:, read[0], read[1]] @ weight[:, :, i, j].t()
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        inputs, weight = ctx.saved_tensors
        rows = inputs.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C)
        grad_out = gradients[0].permute(0, 2, 3, 1).contiguous()  # (B, H, W, O)
        grad_rows, grad_weight = torch.zeros_like(rows), torch.zeros_like(weight)
        height, width = rows.shape[1:3]
        for (i, j), write, read in taps(height, width, weight.shape[2:], ctx.dilation):
            piece = grad_out[:, write[0], write[1]].reshape(-1, len(weight))  # (N, O)
            shape = rows[:, read[0], read[1]].shape
            grad_rows[:, read[0], read[1]] += (piece @ weight[:, :, i, j]).view(shape)
            grad_weight[:, :, i, j] = piece.t() @ rows[:, read[0], read[1]].reshape(-1, rows.shape[3])
        return grad_rows.permute(0, 3, 1, 2), grad_weight, None


class ReachingConv2d(nn.Conv2d):
    """nn.Conv2d that leaves out the taps beyond the map where that is faster; same parameters and results."""

    @classmethod
    def like(cls, layer: nn.Conv2d) -> ReachingConv2d:
        """The same layer with the same parameters. Raises ValueError unless it keeps the map's size."""
        same = tuple(d * (k // 2) for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        if layer.stride != (1, 1) or layer.groups != 1 or layer.padding != same:
            raise ValueError(f"{layer}: expected stride 1, one group and padding {same}")
        new = cls.__new__(cls)
        new.__dict__ = layer.__dict__
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
