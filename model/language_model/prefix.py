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
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from model.language_model.block_attention import Past
from model.language_model.prefix_files import open_files

BOUND = 2**30  # bytes of prefixes that are kept at most


@dataclass(frozen=True)
class PrefixBounds:
    """How many bytes of prefixes are kept; without effect on results."""

    memory: int = BOUND  # where the LLM is; the last prefix is kept whatever its size
    disk: int = 0  # for what memory has no room for; both bounds hold for each process
    folder: Path | None = None  # where that goes, removed with the cache

    def __post_init__(self) -> None:
        """Raise ValueError for bounds that make no sense."""
        if self.memory < 0 or self.disk < 0:
            raise ValueError(
                f"--prefix_cache_gb: got {self.memory / 1e9:g} and {self.disk / 1e9:g}, expected at least 0"
            )
        if self.disk and self.folder is None:
            raise ValueError("prefixes on disk need a folder")


class PrefixCache:
    """Least recently used prefixes within a bound in bytes; what no longer fits goes to disk, if it may.

    Args:
        compute: ids and media tokens of one prefix -> its keys and values (2 N, H, P, K).
        bounds: bytes that are kept at most.
    """

    def __init__(
        self,
        compute: Callable[[Tensor, Sequence[Tensor]], Tensor],
        bounds: PrefixBounds | None = None,
    ) -> None:
        self.compute, self.bounds = compute, bounds or PrefixBounds()
        self.size = 0
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        folder = self.bounds.folder
        self._files = None if folder is None else open_files(folder, self.bounds.disk)

    @property
    def disk_size(self) -> int:
        """Bytes of prefixes on disk."""
        return self._files.size if self._files else 0

    def get(self, ids: Tensor, media: Sequence[Tensor]) -> Tensor:
        """Keys and values of one prefix. (2 N, H, P, K)"""
        digest = hashlib.blake2b(ids.cpu().numpy().tobytes(), digest_size=32)
        for tokens in media:
            digest.update(tokens.detach().float().cpu().contiguous().numpy().tobytes())
        key = digest.hexdigest()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = self._files.read(key) if self._files else None
        if made is None:
            made = self.compute(ids, media)
        self._kept[key] = made
        self.size += _bytes(made)
        while self.size > self.bounds.memory and len(self._kept) > 1:
            name, dropped = self._kept.popitem(last=False)
            self.size -= _bytes(dropped)
            if self._files:
                self._files.write(name, dropped)
        return made

    def clear(self) -> None:
        """Forget all prefixes."""
        if self._files:
            self._files.clear()
        self._kept.clear()
        self.size = 0


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def stack_prefixes(prefixes: Sequence[Tensor], room: int = 0) -> tuple[Past, Tensor]:
    """B left-padded prefixes, and which of their positions are real: (B, P) bool.

    room: positions to leave free after the prefixes, for `as_cache`.
    """
    longest = max(prefix.shape[2] for prefix in prefixes)
    parts, heads, _, width = prefixes[0].shape
    mask = torch.zeros(len(prefixes), longest, dtype=torch.bool, device=prefixes[0].device)
    states = prefixes[0].new_empty(parts, len(prefixes), heads, longest + room, width)
    for row, prefix in enumerate(prefixes):
        start = longest - prefix.shape[2]
        mask[row, start:] = True
        states[:, row, :, :start] = 0.0
        states[:, row, :, start:longest] = prefix
    return Past(states[::2].unbind(), states[1::2].unbind(), room), mask


class RoomyLayer(DynamicLayer):
    """Keys and values in memory that has room for those to come: what is there is not copied at every token.

    Not for training: what is given is written in place.

    room: positions of an answer, beyond what the first call gives; more than that are copied, as ever.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._places: tuple[Tensor, Tensor] | None = None

    def start(self, keys: Tensor, values: Tensor) -> None:
        """Take these, whose last `room` positions are free, as they lie in memory. (B, H, P + room, K)"""
        self.lazy_initialization(keys, values)
        self._places = keys, values
        length = keys.shape[2] - self._room
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        length = self.get_seq_length()
        end = length + key_states.shape[2]
        if self._places is None or end > self._places[0].shape[2]:
            new = [self._with_room(one, end) for one in (key_states, value_states)]
            if length:
                new[0][:, :, :length], new[1][:, :, :length] = self.keys, self.values
            elif not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            self._places = new[0], new[1]
        keys, values = self._places
        keys[:, :, length:end], values[:, :, length:end] = key_states, value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def _with_room(self, like: Tensor, length: int) -> Tensor:
        rows, heads, _, width = like.shape
        return like.new_empty(rows, heads, length + self._room, width)


def answer_cache(room: int) -> Cache:
    """An empty cache for prompts and answers of up to `room` tokens, without gradient."""
    return Cache(layer_class_to_replicate=partial(RoomyLayer, room))  # type: ignore[arg-type]


def as_cache(past: Past) -> Cache:
    """A cache that holds the past and grows from there; in place, if the past has room."""
    cache = DynamicCache()
    for keys, values in zip(past.keys, past.values, strict=True):
        if past.room:
            roomy = RoomyLayer(past.room)
            roomy.start(keys, values)
            cache.layers.append(roomy)
            continue
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values  # set, not updated: that would copy once more
        cache.layers.append(layer)
    return cache


def unstack_cache(cache: DynamicCache) -> Tensor:
    """Keys and values of a cache of one row. (2 N, H, P, K)"""
    return torch.cat([part for layer in cache.layers for part in (layer.keys, layer.values)]).detach()
