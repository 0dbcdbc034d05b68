"""What is known about media files: content hashes, and which files were found to be decodable.

An entry holds while path, size, modification time and change time of the file stay the same; the last one
moves too where a file is rewritten and its old modification time put back. Entries are kept as JSON lines
that are only ever appended, each line with one write and a line break on both sides: a line torn by a kill
spoils itself alone, and several processes can append at once. Each line has a checksum; what stood in a line
that is damaged, or of an earlier version without checksums, is found out anew. The file can be deleted at any
time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from pathlib import Path
from typing import Any

from data.files import append_line, seal, unseal

log = logging.getLogger(__name__)
KEY = ("path", "size", "mtime_ns", "ctime_ns")
Key = tuple[str, int, int, int]


class MediaIndex:
    """Remembers facts about files across runs.

    Args:
        path: the JSON-lines file, None to remember within this object only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._facts: dict[Key, dict[str, Any]] = {}
        if path is not None and path.is_file():
            lines = [line for line in path.read_bytes().split(b"\n") if line]
            if damaged := [line for line in lines if not self._read_line(line)]:
                log.warning(
                    "%s: %d of %d lines are torn or damaged and left out; their media are read again; delete "
                    "the file to be rid of this",
                    path,
                    len(damaged),
                    len(lines),
                )

    def content_hash(self, path: Path) -> str:
        """SHA-256 of the file's content in hexadecimal, read only if the file is new or changed."""
        known = self._facts.get(self._key(path), {}).get("sha256")
        if isinstance(known, str):
            return known
        key = self._key(path)  # before reading: a change during the reading makes the entry stale, not wrong
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        self._add(key, {"sha256": digest.hexdigest()})
        return digest.hexdigest()

    def is_checked(self, path: Path, decoder: str) -> bool:
        """Whether this content was decoded by `decoder` ("sound", "picture", "frames") without fault."""
        try:
            return bool(self._facts.get(self._key(path), {}).get(decoder))
        except OSError:
            return False

    def mark_checked(self, path: Path, decoder: str) -> None:
        """Remember that the file as it is now was decoded without fault."""
        self._add(self._key(path), {decoder: True})

    @staticmethod
    def _key(path: Path) -> Key:
        stat = path.stat()
        return os.path.abspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns

    def _add(self, key: Key, facts: dict[str, Any]) -> None:
        with self._lock:
            self._facts.setdefault(key, {}).update(facts)
        if self.path is not None:
            line = seal(dict(zip(KEY, key, strict=True)) | facts, ascii_only=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_line(self.path, f"\n{line}")

    def _read_line(self, line: bytes) -> bool:
        """Take in what a line says; whether it is whole."""
        try:
            entry, sealed = unseal(line)
            key = (entry.pop(KEY[0]), entry.pop(KEY[1]), entry.pop(KEY[2]), entry.pop(KEY[3]))
        except (ValueError, KeyError):
            return False
        if sealed:
            self._facts.setdefault(key, {}).update(entry)
        return True
