"""Why a checkpoint file is no good, told from its bytes: nothing in it is run.

A copy that stopped half-way, a web page saved in place of a download, a pointer of git-lfs, a pickle that
carries code: each is one line that says what it is and what to do.
"""

import contextlib
import pickle
import re
import zipfile
from pathlib import Path

from torch.serialization import get_unsafe_globals_in_checkpoint

from model.moe.json_text import parse_json

PARTIAL_SUFFIXES = (".tmp", ".part", ".partial", ".incomplete", ".crdownload", ".download", ".aria2")
POINTER = b"version https://git-lfs"
ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how files of torch.save begin, since 1.6 and before
HEAD = 512  # bytes looked at
AGAIN = "download or copy it again"


def is_partial(path: Path) -> bool:
    """Whether the name is that of a file being written, or left by what was writing it."""
    return path.suffix.lower() in PARTIAL_SUFFIXES


def byte_fault(path: Path) -> str | None:
    """What is wrong with a file as its first bytes, its size and its own table of contents tell; None if
    nothing is.

    Complete for .json and .safetensors; a torch file may still be damaged inside (see `load_fault`).
    """
    try:
        if path.is_symlink() and not path.exists():
            return f"a link to {path.readlink()}, which does not exist"
        if path.is_dir():
            return "a folder, expected a file"
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if fault := _stand_in(head, size):
        return fault
    if path.suffix == ".json":
        return _json_fault(path)
    if path.suffix == ".model":
        return None
    if path.suffix == ".safetensors":
        return _safetensors_fault(path, head, size)
    if _safetensors_end(path, head, size) is not None:
        return f"holds safetensors under a torch name; rename it to {path.stem}.safetensors"
    if head.startswith(ZIP):
        if not _is_archive(path):
            return f"truncated: {size} bytes of an archive whose end is missing or damaged; {AGAIN}"
        return None
    if not head.startswith(PICKLE):
        return f"no torch file, truncated or something else (begins with {head[:8]!r}); {AGAIN}"
    return None


def load_fault(path: Path, error: Exception) -> str:
    """Why `torch.load(path, weights_only=True)` raised `error`."""
    if fault := byte_fault(path):
        return fault
    if isinstance(error, pickle.UnpicklingError):
        names: list[str] = []
        if _is_archive(path):
            with contextlib.suppress(Exception):  # what is damaged names nothing
                names = get_unsafe_globals_in_checkpoint(path)
        elif match := re.search(r"GLOBAL (\S+)", str(error)):
            names = [match[1]]
        what = f" ({', '.join(names[:3])})" if names else ", or damaged"
        return f"a pickle carrying code{what}; it was not run: use a file of tensors and plain values only"
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"truncated or damaged ({reason}); {AGAIN}"


def _is_archive(path: Path) -> bool:
    """Whether a file ends as an archive of one piece does."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # an end that speaks of several pieces is raised, not told
        return False


def _stand_in(head: bytes, size: int) -> str | None:
    """What lies in the place of the file."""
    if size == 0:
        return f"empty, truncated to 0 bytes; {AGAIN}"
    if head.startswith(POINTER):
        found = re.search(rb"size (\d+)", head)
        of = f" of {int(found[1])} bytes" if found else ""
        return f"a git-lfs pointer in place of the file{of}; run: git lfs pull"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<error")):
        return (
            "a web page or error message in place of the file (a dead link, or one that needs a login); "
            f"{AGAIN}"
        )
    if not head.strip(b"\0"):
        return f"begins with zeros: its space was reserved and never filled; {AGAIN}"
    return None


def _json_fault(path: Path) -> str | None:
    try:
        parse_json(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        return f"not valid JSON, truncated or edited ({error})"
    return None


def _safetensors_fault(path: Path, head: bytes, size: int) -> str | None:
    if head.startswith(ZIP):
        return f"a torch archive under a safetensors name; rename it to {path.stem}.bin"
    end = _safetensors_end(path, head, size)
    if end is None:
        return f"truncated or no safetensors file (no table of contents); {AGAIN}"
    if size != end:
        return f"{'truncated' if size < end else 'too long'}: {size} of {end} bytes; {AGAIN}"
    return None


def _safetensors_end(path: Path, head: bytes, size: int) -> int | None:
    """Bytes that the table of contents announces; None where there is no such table.

    Layout: 8 bytes little-endian length of the table, the table in JSON, the data.
    """
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or length + 8 > size:
        return None
    with path.open("rb") as file:
        table = file.read(8 + length)[8:]
    try:
        parts = [entry for name, entry in parse_json(table).items() if name != "__metadata__"]
        return 8 + length + max((int(entry["data_offsets"][1]) for entry in parts), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
