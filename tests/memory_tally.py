"""Bytes that live tensors hold, now and at the peak: what `torch.cuda.max_memory_allocated` is on a GPU."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryTally(TorchDispatchMode):
    """Within the block every storage that an operation makes is counted until it is freed.

    What a kernel takes and gives back inside one operation is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._held: set[int] = set()

    def add(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors that were made outside the block; returns the bytes that this added."""
        before = self.now
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in self._held or tensor.is_meta:
                continue
            self._held.add(key)
            self.now += size
            weakref.finalize(storage, self._drop, key, size)
        self.peak = max(self.peak, self.now)
        return self.now - before

    def _drop(self, key: int, size: int) -> None:
        self._held.discard(key)
        self.now -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self.add(leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor))
        return made
