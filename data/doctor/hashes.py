"""Full-file hashes of weights, held against what is known about them.

A reference is, in this order: the name of the blob that a link into the Hugging Face cache leads to; the
record that a Hugging Face download leaves beside its files (`.cache/huggingface/download/NAME.metadata`, line
2); a line of a `SHA256SUMS` file (made by `sha256sum * > SHA256SUMS`). Only SHA-256 references count.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from data.doctor.findings import Level, Section
from data.media_index import MediaIndex

ABOVE = 3  # folders above a file that are searched for a record of it
SUMS = "SHA256SUMS"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """The hash that a file should have."""

    sha256: str
    source: str  # where that is written


def find_reference(path: Path) -> Reference | None:
    """What is known about a file's hash."""
    if path.is_symlink() and _SHA256.fullmatch(path.resolve().name):
        return Reference(path.resolve().name, "Hugging Face cache")
    for folder in list(path.absolute().parents)[:ABOVE]:
        name = path.absolute().relative_to(folder)
        record = folder / ".cache" / "huggingface" / "download" / f"{name}.metadata"
        lines = _lines(record)
        if len(lines) > 1 and _SHA256.fullmatch(lines[1].strip()):
            return Reference(lines[1].strip(), "Hugging Face download record")
        for line in _lines(folder / SUMS):
            digest, _, listed = line.strip().partition(" ")
            if _SHA256.fullmatch(digest) and listed.strip(" *").removeprefix("./") == name.as_posix():
                return Reference(digest, f"{folder.name}/{SUMS}")
    return None


def check_hashes(
    section: Section,
    files: Sequence[Path],
    index: MediaIndex,
    *,
    known: Mapping[Path, Reference] | None = None,
    hash_all: bool = False,
    progress: bool = False,
) -> None:
    """Hash the files that have a reference, over all cores, and add what differs to the section.

    Args:
        known: references found elsewhere.
        hash_all: also hash files without a reference, for the JSON report.
    """
    references = {path: (known or {}).get(path) or find_reference(path) for path in files}
    todo = [path for path in files if hash_all or references[path] is not None]
    from tqdm import tqdm

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashed = pool.map(index.content_hash, todo)
        bar = tqdm(hashed, total=len(todo), desc="hashing", unit="file", disable=not progress or not todo)
        hashes = dict(zip(todo, bar, strict=True))
    section.facts.setdefault("sha256", {}).update({str(path): value for path, value in hashes.items()})
    right = 0
    for path, value in hashes.items():
        reference = references[path]
        if reference is not None and reference.sha256 != value:
            section.add(
                Level.PROBLEM,
                path,
                f"hash is {value[:16]}, but {reference.source} says {reference.sha256[:16]}: damaged or "
                "changed; download or copy it again",
            )
        right += reference is not None and reference.sha256 == value
    without = [path for path in files if references[path] is None]
    if right:
        sources = {r.source for path in hashes if (r := references[path]) is not None}
        section.add(Level.OK, "", f"{right} files have the hash of their {' or '.join(sorted(sources))}")
    if without:
        section.add(
            Level.NOTE,
            "",
            f"{len(without)} files have no hash to compare with (a {SUMS} file beside them, or the record "
            "of a Hugging Face download)",
        )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
