"""Causal attention in blocks of plain batched matrix products, for 16 bits on a CPU.

There torch's fused kernel is slow in the backward pass. Here queries are cut into blocks, each of which sees
the keys up to its own end only; scores, weights and their gradients are batched products, query heads that
share a key head are rows of one product, and no key is copied. The weights are kept for backward.

Few queries after a long past that nothing is learned from (`Past`) are a case of their own: the past's keys
and values stand beside those of the queries, no key is copied into one tensor with them, and neither backward
nor its memory touches them.

`register` makes it known to transformers as the attention kernel "blocks" of any model.

Legend: B rows, H query heads, K key heads, G = H / K, T queries, S keys, P keys of the past, D head width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

NAME = "blocks"
BLOCK = 128  # queries of a block, a multiple of the matrix units' 32 rows: shorter ones see fewer masked keys


def register() -> None:
    """Make the kernel known to transformers; a second time changes nothing."""
    AttentionInterface.register(NAME, block_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


@dataclass(frozen=True)
class Past:
    """Keys and values (B, K, P, D) of every layer, fixed. Given to the model as the argument `past`, with a
    mask (B, 1, T, P + T) of numbers to add, in place of a cache."""

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    room: int = 0  # positions at their end that hold nothing yet; 0 where they are an argument


def block_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    past: Past | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention of transformers' interface: softmax(scaling q k^T + mask) v.

    Args:
        query: (B, H, T, D). key, value: (B, K, S, D), the last T of them being those of the queries.
        attention_mask: (B, 1, T, S) bool, or None for causal attention without padding.
        past: what comes before the keys; the mask is then (B, 1, T, P + S) numbers.

    Returns:
        (B, T, H, D) and no weights.

    Raises:
        ValueError: dropout, capped scores, attention sinks, a mask of another kind, or a module that is not
            causal.
    """
    if unknown := [name for name in ("softcap", "s_aux") if unused.get(name) is not None]:
        raise ValueError(f"attention kernel {NAME!r} has no {' or '.join(unknown)}; use eager or sdpa")
    if dropout:
        raise ValueError(f"attention kernel {NAME!r}: got dropout {dropout}, expected 0; use sdpa")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if past is not None:
        assert attention_mask is not None and isinstance(module.layer_idx, int)
        before = past.keys[module.layer_idx], past.values[module.layer_idx]
        return _after_past(query, key, value, *before, attention_mask, scale).transpose(1, 2), None
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        raise ValueError(
            f"attention kernel {NAME!r}: got a mask of {attention_mask.dtype}, expected bool; use sdpa"
        )
    if attention_mask is None and not getattr(module, "is_causal", True):
        raise ValueError(f"attention kernel {NAME!r} is causal, {type(module).__name__} is not; use sdpa")
    output: Tensor = _BlockAttention.apply(query, key, value, attention_mask, scale)  # type: ignore[no-untyped-call]
    return output.transpose(1, 2), None


def mask_after_past(past: Tensor, own: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to the scores of T queries: 0 where a key is real and not later, else the lowest number.

    Args:
        past: (B, P) bool, which keys of the past are real. own: (B, T) bool, which of the queries' own are.

    Returns:
        (B, 1, T, P + T)
    """
    causal = (
        own[:, None, :] & torch.ones(own.shape[1], own.shape[1], dtype=torch.bool, device=own.device).tril()
    )
    seen = torch.cat([past[:, None, :].expand(-1, own.shape[1], -1), causal], -1)
    return torch.zeros(seen.shape, dtype=dtype, device=own.device).masked_fill(~seen, torch.finfo(dtype).min)[
        :, None
    ]


def _after_past(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    mask: Tensor,
    scale: float,
) -> Tensor:
    """softmax(scale q [past_key, key]^T + mask) [past_value, value]. (B, H, T, D)"""
    rows, heads, length, width = query.shape
    shared, past = key.shape[1], past_key.shape[2]
    q = (query * scale).reshape(rows * shared, -1, width)  # (BK, G T, D)
    k, v, past_k, past_v = (x.reshape(rows * shared, -1, width) for x in (key, value, past_key, past_value))
    scores = torch.cat([torch.bmm(q, past_k.transpose(1, 2)), torch.bmm(q, k.transpose(1, 2))], -1)
    scores = scores.view(rows, heads, length, -1) + mask
    weights = torch.softmax(scores, -1).view(rows * shared, -1, scores.shape[-1])
    output = torch.baddbmm(torch.bmm(weights[..., :past], past_v), weights[..., past:], v)
    return output.view(rows, heads, length, width)


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
