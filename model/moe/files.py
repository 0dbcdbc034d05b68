"""Atomic writing, so that a reader never sees a part of a file, and safe reading of tensor files."""

import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import torch


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes `path` when the block ends without an error.

    The bytes go to `.NAME.tmp` in the same folder, are flushed to disk and renamed; the folder entry is
    flushed too. The name is fixed so that a killed process leaves at most one such file, which the next try
    overwrites.

    Raises:
        OSError: the folder cannot be written or the disk is full; an existing `path` is untouched.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        _discard(partial)
        raise OSError(
            error.errno, f"{path}: not saved ({error.strerror or error}); what was there is untouched"
        ) from error
    except BaseException:
        _discard(partial)
        raise
    _flush_folder(path.parent)


def read_tensor_file(path: str | Path, *, mmap: bool = False) -> dict[str, object]:
    """Read a `torch.save` file that holds tensors and plain values only.

    Args:
        mmap: leave the tensors on disk until they are used, where the file's container allows it (zip: torch
            1.6 and newer).

    Returns:
        The dictionary in the file, tensors on the CPU.

    Raises:
        ValueError: missing, truncated, no dictionary with text keys, or a pickle that carries code.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; train the task that writes it, or correct the path")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # refused or read all the same
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0] if str(error) else "unreadable pickle"
        raise ValueError(
            f"{path}: holds more than tensors and plain values, or is damaged ({reason}); not loaded"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: truncated or not a torch file ({reason}); make it anew") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path}: expected a dictionary with text keys, got {type(content).__name__}")
    return content


def _discard(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot flush a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
