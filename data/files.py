"""Files that survive a crash: atomic writes, hashes, one run per folder or file.

A reader sees the old file or the new one, never half of either: everything is written to a temporary
name in the same folder, flushed to the disk and renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import socket
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from model.moe.atomic import atomic_write, naming
from model.moe.json_text import parse_json

log = logging.getLogger(__name__)
SUMS = "SHA256SUMS"  # read by sha256sum too


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically (see `atomic_write`)."""
    with atomic_write(path) as file:
        file.write(content)


def write_json_atomic(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; a ValueError names the file and the place where it stops being JSON."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: not readable as JSON ({error}); repair the file or write it anew"
        ) from error


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def append_line(path: Path, line: str) -> None:
    """Append one line with a single write, so that parallel writers do not mix their lines.

    Raises OSError naming the file; a part of the line may be there then.
    """
    with naming(path), path.open("ab") as file:
        file.write(line.encode() + b"\n")
        file.flush()


def seal(value: dict[str, Any], *, ascii_only: bool = False) -> str:
    """One JSON line of an object and a checksum of it (CRC-32), for `unseal` and `read_sealed_lines`.

    ascii_only: escape all else, where a text may be no UTF-8, as names of files may.
    """
    return json.dumps(with_checksum(value), ensure_ascii=ascii_only)


def with_checksum(value: dict[str, Any]) -> dict[str, Any]:
    """An object of JSON values and, as `crc`, the CRC-32 of its text, for `unseal` however it is written."""
    return value | {"crc": _crc(value)}


def unseal(text: bytes) -> tuple[dict[str, Any], bool]:
    """The object in a text without its checksum, and whether there was one.

    Raises: ValueError if it is no JSON object, or if the checksum does not fit.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError(f"got {type(value).__name__}, expected a JSON object")
    sealed = take_checksum(value)
    return value, sealed


def take_checksum(value: dict[str, Any]) -> bool:
    """Take the `crc` out of an object; whether there was one. Raises ValueError if it does not fit."""
    checksum = value.pop("crc", None)
    if checksum not in (None, _crc(value)):
        raise ValueError("the checksum does not fit, a byte of it has changed")
    return checksum is not None


def read_sealed_lines(path: Path, keys: set[str]) -> list[dict[str, Any]]:
    """Objects with exactly these keys from a file of sealed lines; damaged lines are left out with a warning.

    Lines without a checksum, from before there was one, are taken as they are. A torn last line is cut off.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    complete = content.rfind(b"\n") + 1
    if complete < len(content):
        with path.open("r+b") as file:
            file.truncate(complete)
    values, damaged = [], []
    for number, line in enumerate(content[:complete].split(b"\n")[:-1], start=1):
        try:
            value, _ = unseal(line)
        except ValueError:
            value = {}
        if value.keys() == keys:
            values.append(value)
        else:
            damaged.append(number)
    if damaged:
        log.warning(
            "%s: %d of %d lines are damaged and left out, the first is line %d; what they held is made again",
            path,
            len(damaged),
            len(damaged) + len(values),
            damaged[0],
        )
    return values


def _crc(value: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


def write_sums(folder: Path, paths: Sequence[Path]) -> None:
    """Write SHA256SUMS of finished files, all in `folder`; `sha256sum -c SHA256SUMS` checks them too."""
    lines = [f"{sha256_file(path)}  {path.relative_to(folder)}\n" for path in sorted(set(paths))]
    write_bytes_atomic(folder / SUMS, "".join(lines).encode())


def require_unchanged(path: Path) -> None:
    """Raise ValueError if a SHA256SUMS beside a file, or a folder above, names it with another sum."""
    for folder in path.parents[:2]:
        sums = folder / SUMS
        if not sums.is_file() or not path.is_file():
            continue
        known = dict(line.split("  ", 1)[::-1] for line in sums.read_text().splitlines() if "  " in line)
        if known.get(str(path.relative_to(folder))) not in (None, sha256_file(path)):
            raise ValueError(
                f"{path}: changed since {SUMS} in {folder} was written; evaluate again, which takes no "
                "answer twice"
            )


def only_run_in(folder: Path, patience: float = 10.0) -> contextlib.AbstractContextManager[None]:
    """Hold `folder` for this run; a second run on the same folder gets a ValueError instead of a race.

    Of several processes of one run (RANK is set by the launchers) the first holds it. The system lets go of
    it when that process and those it forked have ended, however they end: nothing is left to clean up. A
    killed process takes a moment to give its memory back; a run started in that moment (a requeued job)
    waits for it, at most `patience` seconds.
    """
    return _held(folder / ".lock", folder, patience)


def only_run_for(file: Path, patience: float = 10.0) -> contextlib.AbstractContextManager[None]:
    """Hold one file for this run as `only_run_in` holds a folder; runs for other files beside it go on."""
    return _held(file.with_name(f".lock.{file.name}"), file, patience)


@contextlib.contextmanager
def _held(lock: Path, place: Path, patience: float) -> Iterator[None]:
    """Hold `place` by its lock file, whose folder is made."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    if int(os.environ.get("RANK", "0")) > 0:
        yield
        return
    with lock.open("a+") as file:
        _lock(file, place, patience)
        with naming(file.name):
            file.truncate(0)
            # Unbuffered: what a buffer could not write it would try to write again when it is closed.
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def _lock(file: TextIO, place: Path, patience: float) -> None:
    """Lock an open file, or raise ValueError when another still holds it after `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                file.seek(0)
                holder = file.read(200).strip() or "unknown"
                raise ValueError(
                    f"{place}: another run is writing here ({holder}); wait for it, end it, or choose "
                    "another output folder"
                ) from None
            time.sleep(0.05)
        except OSError as error:
            raise ValueError(f"{place}: cannot be locked ({error}); choose another output folder") from error


def require_writable(folder: Path) -> None:
    """Raise ValueError before the long work if nothing can be written below `folder`."""
    try:
        write_bytes_atomic(folder / ".writable", b"")
        (folder / ".writable").unlink(missing_ok=True)  # another process of this run may have been faster
    except OSError as error:
        raise ValueError(f"{folder}: cannot write here ({error}); choose another output folder") from error
