"""Reading files of `torch.save` without running code and without using a damaged byte.

`torch.load` does not look at the checksums that `torch.save` writes: a flipped bit in a tensor goes
unnoticed, with and without mmap. Here every record of the archive is held against its CRC-32 before anything
is unpickled. Files older than torch 1.6 are no archives and have no checksums.
"""

from __future__ import annotations

import mmap as memory_map
import os
import struct
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of a zip record; ends with the lengths of name and extra field
LOCAL_MAGIC = b"PK\x03\x04"
STRUCTURE = ("data.pkl", "version", "byteorder", ".format_version", ".storage_alignment")


def load_pt(path: Path, *, mmap: bool = False, values: bool = True) -> Any:
    """Content of a `torch.save` file, tensors and plain values only, on the CPU.

    Args:
        mmap: leave the tensors on disk until they are used, where the file is an archive.
        values: hold the tensors' bytes against their checksums; without, only keys and shapes may be used.

    Raises:
        pickle.UnpicklingError: the file carries anything but tensors and plain values.
        Exception: of any other kind, since damage comes up anywhere in torch; ValueError for a checksum.
    """
    archive = is_archive(path)
    if archive:
        check_archive(path, values=values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol|Validating sparse")  # no news
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and archive)
    _check_tensors(content, depth=3)
    return content


def is_archive(path: Path) -> bool:
    """Whether torch takes a file for an archive, which has checksums; without a look at its end."""
    with path.open("rb") as file:
        return file.read(len(LOCAL_MAGIC)) == LOCAL_MAGIC  # what torch goes by


def check_archive(path: Path, *, values: bool = True) -> None:
    """Raise ValueError naming the first record of a torch archive that is not what was written.

    Records are stored as they are (no compression, so no bomb) and do not overlap in sum. A checksum of 0 is
    none: torch writes it where `torch.serialization.set_crc32_options(False)` was called.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    size = os.path.getsize(path)
    if sum(record.file_size for record in records) > size:
        raise ValueError(f"its records announce more than the {size} bytes of the file")
    if not values:
        records = [record for record in records if record.filename.partition("/")[2] in STRUCTURE]
    with (
        path.open("rb") as file,
        memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ) as content,
        memoryview(content) as view,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        for fault in pool.map(lambda record: _record_fault(view, record), records):
            if fault:
                raise ValueError(fault)


def _record_fault(content: memoryview, record: zipfile.ZipInfo) -> str | None:
    """What is wrong with a record, None if nothing is."""
    if record.compress_type != zipfile.ZIP_STORED:
        return f"record {record.filename} is compressed, which torch.save never does"
    start = record.header_offset
    try:
        header = LOCAL_HEADER.unpack_from(content, start)
    except struct.error:
        return f"record {record.filename} lies outside the file"
    start += LOCAL_HEADER.size + header[-2] + header[-1]
    if header[0] != LOCAL_MAGIC or start + record.file_size > len(content):
        return f"record {record.filename} is not where the archive's table says"
    if not record.CRC:
        return None
    with content[start : start + record.file_size] as data:
        if zlib.crc32(data) != record.CRC:
            return f"the checksum of record {record.filename} does not fit, a byte of it has changed"
    return None


def _check_tensors(content: object, depth: int) -> None:
    """Raise ValueError for a tensor that is more than its bytes: a view that repeats them, sparse, meta."""
    if isinstance(content, Tensor):
        plain = content.layout == torch.strided and content.device.type == "cpu"
        if not plain or content.numel() * content.element_size() > content.untyped_storage().nbytes():
            raise ValueError(f"a tensor of shape {tuple(content.shape)} is not held by the file's bytes")
    elif depth and isinstance(content, dict | list | tuple):
        for value in content.values() if isinstance(content, dict) else content:
            _check_tensors(value, depth - 1)
