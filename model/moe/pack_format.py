"""The bytes of an expert pack: LoRA experts of equal shape, one row of a file each.

    layout  sealed {"format": 1, "shapes": {key: shape}}, whole pages
    row 0   entry, one page: sealed {"name", "stamp", "sha256", "checksum", "header"}
            values: float32, tensors in the order of `shapes`, zeros up to whole pages
    row 1   ...

Sealed: CRC-32 and length of a JSON text, eight hexadecimal digits and a space each, the text, zeros up to
whole pages. A row counts once its entry is there, which is written after its values; an entry whose seal is
broken is none. Rows are only appended and the length of a row follows from the layout, so that a damaged
entry costs its own row and no other.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from model.moe.expert_files import ExpertHeader, header_entry, parse_header
from model.moe.expert_sites import parameter_name

FORMAT = 1
PAGE = 4096
_WORDS = PAGE // 8
_SEAL = 18  # bytes before the JSON text


def seal(value: object) -> bytes:
    """Whole pages that `unseal` reads back."""
    text = json.dumps(value).encode()
    sealed = b"%08x %08x " % (zlib.crc32(text), len(text)) + text
    return sealed + bytes(-len(sealed) % PAGE)


def unseal(file: int, offset: int) -> object:
    """The value sealed at an offset of an open file; None if there is none, or it is damaged."""
    page = os.pread(file, PAGE, offset)
    try:
        crc, length = int(page[:8], 16), int(page[9:17], 16)
    except ValueError:
        return None
    text = page[_SEAL : _SEAL + length]
    if _SEAL + length > PAGE:
        text += os.pread(file, _SEAL + length - PAGE, offset + PAGE)
    if len(text) != length or zlib.crc32(text) != crc:
        return None
    return json.loads(text)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Layout:
    """Where the tensors of an expert stand in its row."""

    shapes: Mapping[str, tuple[int, ...]]
    """File key -> shape, in the order of the values."""

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> "Layout":
        """Layout of an expert with these tensors."""
        return Layout({key: tuple(tensors[key].shape) for key in sorted(tensors)})

    @staticmethod
    def read(file: int) -> "Layout | None":
        """Layout of an open pack; None if it is damaged or of another format."""
        value = unseal(file, 0)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            return None
        return Layout({key: tuple(shape) for key, shape in value["shapes"].items()})

    @cached_property
    def head(self) -> bytes:
        """What a pack begins with."""
        return seal({"format": FORMAT, "shapes": self.shapes})

    @cached_property
    def places(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Name of the parameter in the bank -> its first value in the row, and its shape."""
        found, start = {}, 0
        for key, shape in self.shapes.items():
            found[parameter_name(key)] = (start, shape)
            start += torch.Size(shape).numel()
        return found

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of a row, entry and padding included."""
        values = 4 * sum(torch.Size(shape).numel() for shape in self.shapes.values())
        return PAGE + values + -values % PAGE

    def offset(self, row: int) -> int:
        """Where a row begins, in bytes."""
        return len(self.head) + row * self.row_bytes

    def rows(self, size: int) -> int:
        """Rows that a pack of `size` bytes has begun."""
        return max(0, -(-(size - len(self.head)) // self.row_bytes))

    def values(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The values of a row, padded. (values,) float32"""
        flat = [tensors[key].detach().to("cpu", torch.float32).flatten() for key in self.shapes]
        row = torch.zeros((self.row_bytes - PAGE) // 4)
        torch.cat(flat, out=row[: sum(map(len, flat))])
        return row


def checksum(values: Tensor) -> str:
    """SHA-256 over the sums of each page and of each place in a page, of 64-bit words modulo 2^64.

    Fifteen times as fast as SHA-256 over the values. One changed word changes two sums; damage goes unseen
    only if all sums of pages and of places stay what they were.
    """
    words = values.view(torch.int64).view(-1, _WORDS)
    digest = hashlib.sha256(words.sum(1).numpy().tobytes())
    digest.update(words.sum(0).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Entry:
    """What a row is."""

    name: str
    """Name of the expert file."""
    stamp: tuple[int, ...] | None
    """`stamp_of` the file; None if it was too young for its times to tell it from what may follow."""
    sha256: str
    """Of the file."""
    checksum: str
    """Of the values."""
    header: ExpertHeader

    @staticmethod
    def read(file: int, offset: int, pack: Path) -> "Entry | None":
        """The entry at an offset of an open pack; None if there is none, or it is damaged."""
        value = unseal(file, offset)
        if not isinstance(value, dict):
            return None
        stamp = value["stamp"] if value["stamp"] is None else tuple(value["stamp"])
        header = parse_header(value["header"], pack)
        return Entry(value["name"], stamp, value["sha256"], value["checksum"], header)

    def page(self) -> bytes:
        """The page that `read` reads back."""
        page = seal({**asdict(self), "header": header_entry(self.header)})
        assert len(page) == PAGE, self
        return page
