"""Features of clips as files that survive kills, damage and other processes; and a bounded copy in memory.

    ROOT/ab/abcd....safetensors    "tokens" (T, D), "routing" (W,) and a checksum of both
    ROOT/writing/                  files being written; renamed when complete

A reader sees a whole file or none. The checksum finds what a crash of the machine or a bad disk spoils later;
such a file counts as absent. Files are not flushed one by one, since all of them can be made again.

T media tokens, D LLM width, W tower width.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
import zlib
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.encoders.features import MediaFeatures
from model.moe.json_text import parse_json

log = logging.getLogger(__name__)

LEFT_OVER = 3600.0  # seconds after which a file being written counts as left by a killed process


class FeatureFiles:
    """One file per key below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """Where the features of a key lie."""
        return self.root / key[:2] / f"{key}.safetensors"

    def holds(self, key: str) -> bool:
        """Whether there is a file; it may be damaged."""
        return self.path(key).is_file()

    def write(self, key: str, features: MediaFeatures) -> None:
        """Store features; raises OSError naming the store where that is not possible."""
        tensors = {"tokens": features.tokens, "routing": features.routing}
        content = save(tensors, {"checksum": _checksum(features)})
        part = self.root / "writing" / f"{key[:16]}.{os.getpid()}.{uuid.uuid4().hex}"
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            self.path(key).parent.mkdir(parents=True, exist_ok=True)
            part.replace(self.path(key))
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            message = f"{error.strerror}; features cannot be stored, free some space or choose another folder"
            raise OSError(error.errno, message, str(self.root)) from error

    def read(self, key: str) -> MediaFeatures | None:
        """Stored features; None where there is no file, or a damaged one, which is removed with a warning."""
        path = self.path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        features = _parse(content)
        if features is None:
            log.warning("%s is damaged (%d bytes); the clip is encoded again", path, len(content))
            path.unlink(missing_ok=True)
        return features

    def sweep(self) -> None:
        """Remove what killed processes left half written."""
        for part in (self.root / "writing").glob("*"):
            with suppress(FileNotFoundError):  # another process was faster
                if part.stat().st_mtime < time.time() - LEFT_OVER:
                    part.unlink()

    def size_bytes(self) -> int:
        """Bytes of all stored features."""
        return sum(path.stat().st_size for path in self.root.glob("??/*.safetensors"))


class FeatureMemory:
    """Least recently used features within a bound in bytes; safe to use from several threads."""

    def __init__(self, bound: int) -> None:
        self.bound, self.size = bound, 0
        self._kept: OrderedDict[str, MediaFeatures] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> MediaFeatures | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, features: MediaFeatures) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = features
            self.size += _size(features)
            while self.size > self.bound:
                _, dropped = self._kept.popitem(last=False)
                self.size -= _size(dropped)


def _size(features: MediaFeatures) -> int:
    return features.tokens.nbytes + features.routing.nbytes


def _checksum(features: MediaFeatures) -> str:
    total = 0
    for tensor in (features.tokens, features.routing):
        shape = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
        values = tensor.contiguous().view(torch.uint8).numpy()
        total = zlib.crc32(values.data, zlib.crc32(shape, total))
    return f"{total:08x}"


def _parse(content: bytes) -> MediaFeatures | None:
    """Features of a file's content, None where it is damaged."""
    try:
        tensors: dict[str, Tensor] = load(content)
        header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
        features = MediaFeatures(tensors["tokens"], tensors["routing"])
        return features if _checksum(features) == header["__metadata__"]["checksum"] else None
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
