"""Flags of how the backbone runs."""

import argparse
from pathlib import Path

import pytest
import torch

from data.loading_flags import add_loading_flags, add_precision_flags, loading
from model.language_model.loading import Loading


def read(*flags: str) -> Loading:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--feature_store", type=Path, default=Path("store"))
    group = parser.add_argument_group("loading")
    add_precision_flags(group)
    add_loading_flags(group)
    return loading(parser.parse_args(flags))


def test_prefixes_are_kept_in_memory_then_on_disk() -> None:
    assert (read().prefixes.memory, read().prefixes.disk) == (10**9, 0)
    found = read("--prefix_cache_gb", "0.5", "20").prefixes
    assert (found.memory, found.disk, found.folder) == (5 * 10**8, 20 * 10**9, Path("store"))
    with pytest.raises(ValueError, match="--prefix_cache_gb: got -1 and 0"):
        read("--prefix_cache_gb", "-1")
    with pytest.raises(argparse.ArgumentError, match="got 3 numbers"):
        read("--prefix_cache_gb", "1", "2", "3")


def test_towers_and_kernel() -> None:
    found = read("--tower_precision", "bf16", "--bf16", "True", "--attn_implementation", "blocks")
    assert (found.towers, found.dtype, found.kernel) == (torch.bfloat16, torch.bfloat16, "blocks")
    assert found.identity() == {"dtype": "bfloat16", "attn_implementation": "blocks", "towers": "bfloat16"}
    assert read().identity() == {}
