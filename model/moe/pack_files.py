"""Opening, extending and making expert packs; what they are for: `expert_pack`, their bytes: `pack_format`.

Writers hold `alone`. Readers need no lock: rows stand still, and a pack made anew is a new file.
"""

import fcntl
import hashlib
import logging
import mmap
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from model.moe.atomic import atomic_write, naming
from model.moe.expert_files import ExpertFile, expert_sites_of, inspect_content
from model.moe.files import read_tensor_file
from model.moe.pack_format import PAGE, Entry, Layout, checksum

logger = logging.getLogger(__name__)

YOUNG = 2.0
"""Seconds after its last change in which a file could change again and keep its times: clocks are coarse."""
SPARE = 16
"""Rows without use beyond which, and beyond as many as are in use, a pack is mostly waste."""


def stamp_of(path: Path) -> tuple[int, ...]:
    """Size, times of content and of inode, and inode number: change when a file is written or replaced."""
    found = os.stat(path)
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def settled_stamp(path: Path) -> tuple[int, ...] | None:
    """`stamp_of` a file, None while it is too young for its times to be trusted."""
    stamp = stamp_of(path)
    return stamp if time.time_ns() - max(stamp[1:3]) > YOUNG * 1e9 else None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait for other writers of a folder's pack; nothing is left behind, whatever ends the process."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@dataclass(frozen=True)
class Source:
    """An expert file, read."""

    name: str
    sha256: str
    stamp: tuple[int, ...] | None
    file: ExpertFile
    tensors: dict[str, Tensor]

    @staticmethod
    def read(path: Path) -> "Source":
        """Read an expert file; ValueError if it is damaged, or changes while it is read."""
        before, stamp, digest = stamp_of(path), settled_stamp(path), sha256_of(path)
        file, tensors = inspect_content(read_tensor_file(path), path)
        if stamp_of(path) != before:
            raise ValueError(f"{path}: is being written; start again when that is done")
        return Source(path.name, digest, stamp, file, tensors)

    @property
    def layout(self) -> Layout:
        """Of a pack that can hold it."""
        return Layout.of(self.tensors)

    def row(self) -> tuple[Entry, Tensor]:
        """Its entry and its values."""
        values = self.layout.values(self.tensors)
        return Entry(self.name, self.stamp, self.sha256, checksum(values), self.file.header), values


class Pack:
    """An open pack, its bytes mapped."""

    def __init__(self, path: Path, layout: Layout, rows: Mapping[int, Entry], mapped: mmap.mmap):
        """See `open`."""
        self.path, self.layout = path, layout
        self.rows = {entry.name: row for row, entry in sorted(rows.items())}
        """Name of an expert file -> its last row."""
        self.entries = {row: rows[row] for row in self.rows.values()}
        """Row -> entry."""
        self.sites = expert_sites_of(layout.shapes, path)
        """Layers and projections."""
        self.begun = layout.rows(len(mapped))
        """Rows begun, used or not."""
        self._mapped = mapped
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given buffer is not writable")
            self._bytes = torch.frombuffer(mapped, dtype=torch.uint8)

    @staticmethod
    def open(path: Path) -> "Pack | None":
        """None if there is none, or it is damaged as a whole."""
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        try:
            layout, size = Layout.read(file), os.fstat(file).st_size
            if layout is None or size < len(layout.head):
                return None
            whole = [row for row in range(layout.rows(size)) if layout.offset(row + 1) <= size]
            entries = {row: Entry.read(file, layout.offset(row), path) for row in whole}
            rows = {row: entry for row, entry in entries.items() if entry is not None}
            return Pack(path, layout, rows, mmap.mmap(file, size, access=mmap.ACCESS_READ))
        except (ValueError, OSError, KeyError, TypeError):
            return None  # a disk that fails, or something else under an intact seal: to be made anew
        finally:
            os.close(file)

    @property
    def wasteful(self) -> bool:
        """Whether so many rows are without use that the pack should be made anew."""
        return self.begun - len(self.rows) > max(SPARE, len(self.rows))

    def values(self, row: int) -> Tensor | None:
        """The values of a row, padded, unchecked; None if the file has become shorter. (values,) float32"""
        end = self.layout.offset(row + 1)
        if self._mapped.size() < end:
            return None
        return self._bytes[self.layout.offset(row) + PAGE : end].view(torch.float32)

    def void(self, row: int) -> None:
        """Take a damaged row out, as far as the folder lets."""
        with suppress(OSError), alone(self.path.parent):
            now = Pack.open(self.path)  # perhaps made anew meanwhile
            if now is not None and now.entries.get(row) == self.entries[row]:
                _write_pages(self.path, {self.layout.offset(row): bytes(PAGE)})

    def append(self, paths: Sequence[Path]) -> None:
        """Write the values of all rows, flush, then their entries: a row without entry is none."""
        pages: dict[int, bytes] = {}
        row = self.begun
        with self.path.open("r+b", buffering=0) as file:
            try:
                for path in paths:
                    source = Source.read(path)
                    if source.layout != self.layout:
                        continue  # it cannot share a bank with the others, and the bank will say so
                    entry, values = source.row()
                    with naming(self.path):
                        file.seek(self.layout.offset(row) + PAGE)
                        _write_all(file, values.numpy().data)
                    pages[self.layout.offset(row)] = entry.page()
                    row += 1
                with naming(self.path):
                    os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(file.fileno(), len(self._mapped))
                raise
        _write_pages(self.path, pages)
        logger.info("%s: %d experts appended", self.path, len(pages))

    def restamp(self, paths: Sequence[Path]) -> None:
        """Note the present times of files that were found unchanged by their content."""
        pages = {}
        for path in paths:
            row, stamp = self.rows[path.name], settled_stamp(path)
            if stamp is not None and stamp != self.entries[row].stamp:
                pages[self.layout.offset(row)] = replace(self.entries[row], stamp=stamp).page()
        _write_pages(self.path, pages)


def make_pack(path: Path, layout: Layout, experts: Sequence[Path]) -> None:
    """Write a pack of those of the expert files that have this layout, atomically."""
    with atomic_write(path) as file:
        file.write(layout.head)
        for expert in experts:
            source = Source.read(expert)
            if source.layout == layout:
                entry, values = source.row()
                file.write(entry.page())
                file.write(values.numpy().data)
    logger.info("%s: made from the expert files", path)


def _write_all(file: FileIO, content: memoryview) -> None:
    """Write to an unbuffered file, which may take less than all at once."""
    rest = content.cast("B")
    while rest:
        rest = rest[file.write(rest) :]


def _write_pages(path: Path, pages: Mapping[int, bytes]) -> None:
    """Overwrite pages of a file, offset -> bytes, and flush."""
    if not pages:
        return
    with naming(path), path.open("r+b") as file:
        for offset, page in pages.items():
            os.pwrite(file.fileno(), page, offset)
        os.fsync(file.fileno())
