"""Weight files with one wrong bit, for the tests that damage is found before it is used."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor


def flip_exponent(path: Path, values: Tensor) -> None:
    """Flip the highest bit of the exponent of a float32 in the middle of these stored values."""
    content, inside = bytearray(path.read_bytes()), values.numpy().tobytes()
    assert values.dtype == torch.float32 and content.count(inside) == 1
    content[content.index(inside) + values.numel() // 2 * 4 + 3] ^= 0x40
    path.write_bytes(content)


def as_torch(folder: Path, *, shards: bool = False, archive: bool = True) -> tuple[Path, Tensor]:
    """Store a folder's safetensors as torch file or indexed shards; one of the files, and a tensor in it."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    name = max((name for name in weights if weights[name].ndim == 2), key=lambda name: weights[name].numel())
    parts = {"pytorch_model.bin": [*weights]}
    if shards:
        parts = {"rest.bin": [key for key in weights if key != name], "largest.bin": [name]}
        placed = {key: file for file, keys in parts.items() for key in keys}
        (folder / "pytorch_model.bin.index.json").write_text(
            json.dumps({"metadata": {"total_size": 1}, "weight_map": placed})
        )
    for file, keys in parts.items():
        content = {key: weights[key] for key in keys}
        torch.save(content, folder / file, _use_new_zipfile_serialization=archive)
    return folder / file, weights[name]
