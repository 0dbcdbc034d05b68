"""Tensor files in either container, written atomically.

A content is a dictionary of tensors and of entries with plain values. `NAME.pt` (torch.save) holds it as it
is; `NAME.safetensors` holds the tensors, and the plain entries as JSON in its metadata. Both are read alike;
where both are there they must agree.
"""

import json
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model.moe.atomic import atomic_write
from model.moe.json_text import parse_json
from model.moe.pt_files import load_pt

CHECKSUM = "checksum"  # plain entry of a safetensors file, over all the rest of it
SAFE = ".safetensors"
OTHER_CONTAINER = {".pt": SAFE, SAFE: ".pt"}


def stored_path(path: Path) -> Path:
    """`path`, or the same name in the other container where only that is there."""
    other = other_container(path)
    return other if other is not None and other.is_file() and not path.is_file() else path


def other_container(path: Path) -> Path | None:
    """The same name in the other container; None for a name with another suffix."""
    suffix = OTHER_CONTAINER.get(path.suffix)
    return None if suffix is None else path.with_suffix(suffix)


def write_tensor_file(path: str | Path, content: Mapping[str, object]) -> None:
    """Write tensors and plain entries atomically, in the container that the suffix names.

    Raises:
        ValueError: a plain entry that JSON cannot hold, or tensors that share memory, for safetensors.
        OSError: not writable, or the disk is full.
    """
    if Path(path).suffix != SAFE:
        with atomic_write(path) as file:
            torch.save(dict(content), file)
        return
    tensors = {key: value.contiguous() for key, value in content.items() if isinstance(value, Tensor)}
    plain = {key: value for key, value in content.items() if key not in tensors}
    try:
        # One metadata entry: the order of several is not fixed, equal contents shall be equal files.
        sealed = plain | {CHECKSUM: tensors_checksum(tensors, plain)}
        data = save(tensors, {"plain": json.dumps(sealed, sort_keys=True)})
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{path}: cannot be written as safetensors ({error})") from error
    with atomic_write(path) as file:
        file.write(data)


def tensors_checksum(tensors: Mapping[str, Tensor], plain: object) -> str:
    """CRC-32 (hex) over JSON values and, sorted by name, each tensor's name, type, shape and bytes."""
    total = zlib.crc32(json.dumps(plain, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def read_tensor_file(path: str | Path, *, mmap: bool = False) -> dict[str, object]:
    """Read a file of tensors and plain values in either container.

    Args:
        mmap: leave the tensors on disk, where the container allows it (zip: torch 1.6 and newer);
            for looking at keys and shapes, since their bytes are not held against the checksums then.

    Returns:
        The dictionary in the file, tensors on the CPU.

    Raises:
        ValueError: missing, truncated, a checksum that does not fit, no dictionary with text keys, a pickle
            that carries code, or the same name is there in the other container with another content.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; train the task that writes it, or correct the path")
    content = _read(path, mmap)
    other = other_container(path)
    if other is None or not other.is_file():
        return content
    key = _difference(content, _read(other, mmap))
    if key is not None:
        raise ValueError(
            f"{path} and {other.name} differ in {key!r}; delete the one that is not meant, or write it anew "
            "with scripts/convert_tensors.py --overwrite"
        )
    return content


def _difference(one: Mapping[str, object], two: Mapping[str, object]) -> str | None:
    """The first key whose values differ, None for equal contents. NaN differs from itself."""
    for key in sorted(one.keys() | two.keys()):
        a, b = one.get(key), two.get(key)
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            if a.dtype != b.dtype or not torch.equal(a, b):
                return key
        elif isinstance(a, Tensor) or isinstance(b, Tensor) or a != b:
            return key
    return None


def _read(path: Path, mmap: bool) -> dict[str, object]:
    return read_safetensors(path) if path.suffix == SAFE else _read_pt(path, mmap)


def read_safetensors(path: Path) -> dict[str, object]:
    """Tensors and plain entries of a safetensors file; ValueError if it is no good.

    A file that was made without a checksum, elsewhere or before there were any, is taken as it is.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            plain = parse_json(metadata.get("plain", "{}"))
            tensors: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: truncated or not a safetensors file ({error}); make it anew") from error
    if not isinstance(plain, dict) or plain.keys() & tensors.keys() or metadata.keys() - {"plain", "format"}:
        raise ValueError(f"{path}: its metadata are no plain entries beside the tensors; make it anew")
    if plain.pop(CHECKSUM, None) not in (None, tensors_checksum(tensors, plain)):
        raise ValueError(f"{path}: damaged, its checksum does not fit; restore it or make it anew")
    return tensors | plain


def _read_pt(path: Path, mmap: bool) -> dict[str, object]:
    try:
        content = load_pt(path, mmap=mmap, values=not mmap)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0] if str(error) else "unreadable pickle"
        raise ValueError(
            f"{path}: holds more than tensors and plain values, or is damaged ({reason}); not loaded"
        ) from error
    except Exception as error:  # whatever damage brings up in torch
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: truncated or not a torch file ({reason}); make it anew") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path}: expected a dictionary with text keys, got {type(content).__name__}")
    return content
