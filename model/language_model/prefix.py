"""Keys and values of prompt prefixes, kept: for experts that act on what follows only.

The prefix ends with the last medium (`text` experts), so that it serves all questions about a clip, or before
the last token of the prompt (`answer` experts). It does not depend on the expert, so it is computed once,
without gradient, and serves all epochs, tasks and experts. Each is computed alone, so that its bits do not
depend on company.

Caches keep all positions, also of layers that look back over a sliding window only: what these may see is
left to the attention mask, so that prefixes of any length stack.

Letters: B rows, P prefix length, N layers, H key-value heads, K head width.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

BOUND = 2**30  # bytes of prefixes that are kept at most


class PrefixCache:
    """Least recently used prefixes within a bound in bytes.

    Args:
        compute: ids and media tokens of one prefix -> its keys and values (2 N, H, P, K).
        bound: bytes that are kept at most.
    """

    def __init__(self, compute: Callable[[Tensor, Sequence[Tensor]], Tensor], bound: int = BOUND) -> None:
        self.compute, self.bound, self.size = compute, bound, 0
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, ids: Tensor, media: Sequence[Tensor]) -> Tensor:
        """Keys and values of one prefix. (2 N, H, P, K)"""
        digest = hashlib.blake2b(ids.cpu().numpy().tobytes())
        for tokens in media:
            digest.update(tokens.detach().float().cpu().contiguous().numpy().tobytes())
        key = digest.digest()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = self._kept[key] = self.compute(ids, media)
        self.size += made.numel() * made.element_size()
        while self.size > self.bound and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self.size -= dropped.numel() * dropped.element_size()
        return made


def stack_prefixes(prefixes: Sequence[Tensor]) -> tuple[DynamicCache, Tensor]:
    """A cache of B left-padded prefixes, and which of its positions are real: (B, P) bool."""
    longest = max(prefix.shape[2] for prefix in prefixes)
    parts, heads, _, width = prefixes[0].shape
    mask = torch.zeros(len(prefixes), longest, dtype=torch.bool, device=prefixes[0].device)
    states = prefixes[0].new_zeros(parts, len(prefixes), heads, longest, width)
    for row, prefix in enumerate(prefixes):
        start = longest - prefix.shape[2]
        mask[row, start:] = True
        states[:, row, :, start:] = prefix
    cache = DynamicCache()
    for keys, values in zip(states[::2], states[1::2], strict=True):
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values  # set, not updated: that would copy once more
        cache.layers.append(layer)
    return cache, mask


def unstack_cache(cache: DynamicCache) -> Tensor:
    """Keys and values of a cache of one row. (2 N, H, P, K)"""
    return torch.cat([part for layer in cache.layers for part in (layer.keys, layer.values)]).detach()
