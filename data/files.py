"""Files that survive a crash: atomic writes, hashes, one run per folder.

A reader sees the old file or the new one, never half of either: everything is written to a temporary
name in the same folder, flushed to the disk and renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.moe.files import atomic_write


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
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
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
    """Append one line with a single write, so that parallel writers do not mix their lines."""
    with path.open("ab") as file:
        file.write(line.encode() + b"\n")
        file.flush()


def read_json_lines(path: Path) -> list[Any]:
    """Read JSON lines; a torn last line (a killed writer) is left out and cut off, so that appending goes on
    cleanly.

    Raises ValueError for a broken line that is not the last.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    complete = content.rfind(b"\n") + 1
    if complete < len(content):
        with path.open("r+b") as file:
            file.truncate(complete)
    values = []
    for number, line in enumerate(content[:complete].splitlines(), start=1):
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not JSON ({error}); delete the file to start it anew"
            ) from error
    return values


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold `folder` for this run; a second run on the same folder gets a ValueError instead of a race.

    Of several processes of one run (RANK is set by the launchers) the first holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if int(os.environ.get("RANK", "0")) > 0:
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{folder}: another run is writing here; wait for it or choose another OUTPUT"
            ) from None
        yield


def require_writable(folder: Path) -> None:
    """Raise ValueError before the long work if nothing can be written below `folder`."""
    try:
        write_bytes_atomic(folder / ".writable", b"")
        (folder / ".writable").unlink(missing_ok=True)  # another process of this run may have been faster
    except OSError as error:
        raise ValueError(f"{folder}: cannot write here ({error}); choose another output folder") from error
