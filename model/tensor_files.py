"""Safe reading of weight files, and digests that tell one set of weights from another.

Pickles are read with `weights_only=True`: a file that carries code raises instead of running it. What
`torch.save` wrote is held against its checksums (model/moe/pt_files.py); safetensors files of others have
none.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.file_faults import byte_fault, load_fault
from model.moe.json_text import parse_json
from model.moe.pt_files import is_archive, load_pt

SAMPLED = 64  # entries of each tensor that enter a digest
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")


def read_plain(path: str | Path, *, values: bool = True) -> Any:
    """Content of one `torch.save` file, tensors and plain values only; tensors stay on disk until used
    (mmap). Without `values` these are not held against their checksums: for looking at keys and shapes.

    Raises: ValueError naming the file if it is missing, truncated, or carries anything but tensors and plain
    values.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return load_pt(path, mmap=True, values=values)
    except Exception as error:  # zip, pickle, end of file, unsafe global: all mean that the file is no good
        raise ValueError(f"{path}: {load_fault(path, error)}") from error


def check_torch_file(path: str | Path) -> None:
    """Raise ValueError naming a torch file that `read_plain` would refuse; to be called before others load
    it, who do not look at checksums. Of a file from before torch 1.6, which has none, only the start is
    looked at."""
    path = Path(path)
    if fault := byte_fault(path):
        raise ValueError(f"{path}: {fault}")
    if is_archive(path):
        read_plain(path)


def check_model_folder(folder: str | Path) -> None:
    """`check_torch_file` for each file that transformers' `from_pretrained` reads the weights of a folder
    from; nothing where these are safetensors, or missing."""
    folder = Path(folder)
    safe, single = (folder / name for name in SINGLE_FILES)
    safe_index, index = (folder / name for name in INDEX_FILES)
    if safe.is_file() or safe_index.is_file():
        return
    names = [single.name] if single.is_file() else _shard_names(index) if index.is_file() else []
    for path in (folder / name for name in names):
        if path.is_file():
            check_torch_file(path)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors of one .safetensors or torch file; ValueError where it holds anything else."""
    path = Path(path)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path}: not a readable safetensors file (truncated or damaged): {error}"
            ) from error
    content = read_plain(path)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(
            f"{path}: expected a dict of tensors, got {type(content).__name__} holding other values"
        )
    return dict(content)


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """All tensors of a Hugging Face model folder: one file or indexed shards, safetensors before .bin.

    Raises: ValueError listing what is missing: the folder, the weights, shards, or tensors named in the
    index.
    """
    folder = Path(folder)
    for index_name in INDEX_FILES:
        if (folder / index_name).is_file():
            return _read_shards(folder, folder / index_name)
    for name in SINGLE_FILES:
        if (folder / name).is_file():
            return read_tensors(folder / name)
    raise ValueError(f"{folder}: no weights found, expected one of {', '.join(INDEX_FILES + SINGLE_FILES)}")


def _read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    names, placed = _shard_names(index), read_json(index)["weight_map"]
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise ValueError(
            f"{folder}: {len(absent)} of {len(names)} weight files are missing: {', '.join(absent)}"
        )
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors.update(read_tensors(folder / name))
    missing, extra = sorted(set(placed) - set(tensors)), sorted(set(tensors) - set(placed))
    if missing or extra:
        raise ValueError(
            f"{index}: does not fit its files; missing {missing[:5]}, not in the index {extra[:5]}"
        )
    return tensors


def _shard_names(index: Path) -> list[str]:
    """The weight files that an index names; ValueError where it names none."""
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(n, str) for n in placed.values()):
        raise ValueError(f"{index}: has no 'weight_map' of tensors to files")
    return sorted(set(placed.values()))


def read_json(path: str | Path) -> dict[str, Any]:
    """A JSON object; ValueError naming the file where it is missing, malformed or something else."""
    path = Path(path)
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def digest_tensors(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]], note: str = "") -> str:
    """SHA-256 (hex) over `note` and, sorted by name, each tensor's name, shape and 64 evenly spaced entries
    as float32.

    Cheap at any size (only the sampled entries are touched) and the same for any container or wider dtype.
    """
    named = dict(tensors)
    digest = hashlib.sha256(note.encode())
    for name in sorted(named):
        flat = named[name].detach().reshape(-1)
        count = min(SAMPLED, flat.numel())
        places = torch.arange(count, device=flat.device) * (flat.numel() - 1) // max(count - 1, 1)
        digest.update(f"\n{name} {tuple(named[name].shape)} ".encode())
        digest.update(flat[places].to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()
