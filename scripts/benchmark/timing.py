"""The sides of a comparison; clock, memory and the machine's own limits."""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.feature_store import FeatureStore
from data.inputs import Inputs
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import BackbonePaths, load_backbone
from model.moe.experts import ExpertBank, ExpertConfig

LONG = 0.05  # seconds of a product
REPEATS = 10  # of which the fastest counts
TRIED = 512  # rows of the products that are compared


@dataclass(frozen=True)
class Side:
    """What one side of a comparison works with."""

    model: AnchorLM
    bank: ExpertBank
    inputs: Inputs
    store: FeatureStore


@contextmanager
def opened(paths: BackbonePaths, store: Path, expert: ExpertConfig, ours: bool) -> Iterator[Side]:
    """A backbone with expert 0, freed at the end."""
    dtype = working_dtype() if ours else torch.float32
    backbone = load_backbone(
        paths, dtype=dtype, towers=dtype, attn_implementation="blocks" if ours else "sdpa"
    )
    bank = ExpertBank(backbone.llm, expert, backbone.identity)
    bank.add(0, generator=torch.Generator().manual_seed(0))
    features = FeatureStore(store, backbone.encoder, dtype=dtype)
    yield Side(AnchorLM(backbone.llm, bank), bank, Inputs(backbone, features, quiet=True), features)
    gc.collect()


def seconds(work: Callable[[], object], repeats: int = 1, warm_up: int = 0) -> float:
    """Median wall-clock seconds of a call."""
    for _ in range(warm_up):
        work()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def medians(sides: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, float]:
    """Median seconds of this process on all its processors, of sides that take turns, after so many rounds
    that do not count."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(warm_up + rounds):
        for name, side in sides.items():
            start = time.process_time()
            side()
            found[name].append(time.process_time() - start)
    return {name: statistics.median(taken[warm_up:]) for name, taken in found.items()}


def kept_for_backward(forward: Callable[[], Any], frozen: set[int]) -> int:
    """Bytes of distinct storages that autograd keeps after a forward pass.

    Args:
        frozen: addresses of storages that do not count (parameters).
    """
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in frozen:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself, as the result of what keeps it, would keep that and so stay for ever

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(held.values())


def product_peak(dtype: torch.dtype, side: int = 2048) -> float:
    """FLOP/s of a large matrix product: what the machine can do at most.

    Where a product of a type takes long, as in bf16 on a processor without 16-bit units, a smaller one tells.
    """
    size = min(side, 256)
    while True:
        product = partial(torch.matmul, *(torch.randn(size, size).to(dtype) for _ in range(2)))
        if size == side or seconds(product, warm_up=1) > LONG:
            return 2 * size**3 / min(seconds(product) for _ in range(REPEATS))
        size = min(side, 2 * size)


@cache
def working_dtype() -> torch.dtype:
    """What our side works in: bfloat16 where the processor multiplies it faster than float32, else that."""
    narrow, wide = (product_peak(dtype, TRIED) for dtype in (torch.bfloat16, torch.float32))
    return torch.bfloat16 if narrow > wide else torch.float32


def parser(description: str | None) -> argparse.ArgumentParser:
    """Flags of a topic that is run by itself."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--quick",
        action="store_true",
        help="smaller sizes, fewer repetitions: 10 minutes at most on two cores",
    )
    return made
