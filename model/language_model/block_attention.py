"""Causal attention in blocks of plain batched matrix products, for 16 bits on a CPU.

There torch's fused kernel is slow in the backward pass. Here queries are cut into blocks, each of which sees
the keys up to its own end only; scores, weights and their gradients are batched products, query heads that
share a key head are rows of one product, and no key is copied. The weights are kept for backward.

`register` makes it known to transformers as the attention kernel "blocks" of any model.

Legend: B rows, H query heads, K key heads, G = H / K, T queries, S keys, D head width.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

NAME = "blocks"
BLOCK = 256  # queries of a block; a multiple of the matrix units' 32 rows


def register() -> None:
    """Make the kernel known to transformers; a second time changes nothing."""
    AttentionInterface.register(NAME, block_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def block_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention of transformers' interface: softmax(scaling q k^T + mask) v.

    Args:
        query: (B, H, T, D). key, value: (B, K, S, D), the last T of them being those of the queries.
        attention_mask: (B, 1, T, S) bool, or None for causal attention without padding.

    Returns:
        (B, T, H, D) and no weights.

    Raises:
        ValueError: dropout, a mask of another kind, or a module that is not causal.
    """
    if dropout:
        raise ValueError(f"attention kernel {NAME!r}: got dropout {dropout}, expected 0; use sdpa")
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        raise ValueError(
            f"attention kernel {NAME!r}: got a mask of {attention_mask.dtype}, expected bool; use sdpa"
        )
    if attention_mask is None and not getattr(module, "is_causal", True):
        raise ValueError(f"attention kernel {NAME!r} is causal, {type(module).__name__} is not; use sdpa")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output: Tensor = _BlockAttention.apply(query, key, value, attention_mask, scale)  # type: ignore[no-untyped-call]
    return output.transpose(1, 2), None


def query_blocks(queries: int, keys: int) -> Iterator[tuple[slice, int, int]]:
    """The queries of each block, the key that its first one ends with (excluded), and that of its last."""
    past = keys - queries
    for start in range(0, queries, BLOCK):
        stop = min(start + BLOCK, queries)
        yield slice(start, stop), past + start, past + stop


class _BlockAttention(torch.autograd.Function):
    """(B, H, T, D), (B, K, S, D), (B, K, S, D), mask, scale -> (B, H, T, D) in memory as (B, T, H, D)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        rows, heads, length, width = query.shape
        shared, keys = key.shape[1], key.shape[2]
        q = query.reshape(rows * shared, heads // shared, length, width)
        k, v = (x.reshape(rows * shared, keys, width) for x in (key, value))
        nothing = query.new_zeros(())
        output = query.new_empty(rows, length, heads, width).transpose(1, 2)
        parts = output.view(rows, shared, heads // shared, length, width)
        kept = []
        for place, before, end in query_blocks(length, keys):
            block = q[:, :, place].flatten(1, 2)  # (BK, G n, D)
            scores = torch.baddbmm(nothing, block, k[:, :end].transpose(1, 2), beta=0, alpha=scale)
            scores = scores.view(rows, shared, heads // shared, place.stop - place.start, end)
            if mask is not None:
                scores.masked_fill_(~mask[:, None, :, place, :end], torch.finfo(scores.dtype).min)
            else:
                scores[..., before:] += _above(place.stop - place.start, scores)
            weights = torch.softmax(scores, -1).view(rows * shared, -1, end)
            parts[:, :, :, place] = torch.bmm(weights, v[:, :end]).view(parts[:, :, :, place].shape)
            kept.append(weights)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.scale, ctx.shape = scale, (rows, heads, shared)  # type: ignore[attr-defined]
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        rows, heads, shared = ctx.shape
        gradient = gradient.reshape(rows * shared, heads // shared, *gradient.shape[2:])
        to_q, to_k, to_v = (
            torch.empty_like(x) if need else None
            for x, need in zip((q, k, v), ctx.needs_input_grad[:3], strict=True)
        )
        blocks = zip(query_blocks(q.shape[2], k.shape[1]), kept, strict=True)
        for (place, _, end), weights in reversed(list(blocks)):  # the last one sees all keys
            block = gradient[:, :, place].flatten(1, 2)  # (BK, G n, D)
            kept_sum = float(end < k.shape[1])
            if to_v is not None:
                to_v[:, :end].baddbmm_(weights.transpose(1, 2), block, beta=kept_sum)
            if to_q is None and to_k is None:
                continue
            to_weights = torch.bmm(block, v[:, :end].transpose(1, 2))
            to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
            if to_q is not None:
                part = torch.baddbmm(q.new_zeros(()), to_scores, k[:, :end], beta=0, alpha=ctx.scale)
                to_q[:, :, place] = part.view(to_q[:, :, place].shape)
            if to_k is not None:
                queries = q[:, :, place].flatten(1, 2)
                to_k[:, :end].baddbmm_(to_scores.transpose(1, 2), queries, beta=kept_sum, alpha=ctx.scale)
        return (
            None if to_q is None else to_q.view(rows, heads, *q.shape[2:]),
            None if to_k is None else to_k.view(rows, shared, *k.shape[1:]),
            None if to_v is None else to_v.view(rows, shared, *v.shape[1:]),
            None,
            None,
        )


def _above(side: int, like: Tensor) -> Tensor:
    """What hides later keys: lowest number above the diagonal, 0 elsewhere. (n, n)"""
    return torch.full((side, side), torch.finfo(like.dtype).min, dtype=like.dtype, device=like.device).triu_(
        1
    )
