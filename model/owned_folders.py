"""Temporary folders that show whether the process that made them, or one forked from it, still lives.

    ROOT/{name}HOST_ID/    locked on `.lock` while such a process lives

A killed process leaves its folder; whoever makes the next one at the same place asks for those and removes
them.
"""

import fcntl
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LOCK = ".lock"
UNUSED = 7 * 24 * 3600.0  # seconds after which a folder whose lock may not reach here counts as left


def make_owned(root: Path, name: str) -> tuple[Path, int]:
    """A new folder and its lock, which the system lets go of when this process and those forked from it end.

    Raises:
        OSError: the folder cannot be made, or its file system has no locks.
    """
    own = f"{socket.gethostname()}_{uuid.uuid4().hex}"
    new = root / f"{name}new_{own}"  # to `left_folders` that of another host, until it is locked
    new.mkdir(parents=True)
    try:
        lock = os.open(new / LOCK, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return new.rename(root / f"{name}{own}"), lock
        except OSError:
            os.close(lock)
            raise
    except OSError:
        with suppress(OSError):
            (new / LOCK).unlink(missing_ok=True)
            new.rmdir()
        raise


def left_folders(root: Path, name: str) -> Iterator[Path]:
    """The folders of killed processes below `root`, never one that a living process uses."""
    for folder in root.glob(f"{name}*"):
        with suppress(OSError):  # gone already, or not ours to open
            if _is_left(folder, name):
                yield folder


def _is_left(folder: Path, name: str) -> bool:
    """Whether no living process uses a folder.

    A free lock says so on this host: a folder gets its name when its lock is held. Another host's lock is not
    seen on every shared file system, and earlier versions held none: such a folder must have been unused for
    a week, too.
    """
    unused = time.time() - folder.stat().st_mtime > UNUSED
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return unused
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or it cannot be told
        return False
    finally:
        os.close(lock)
    return unused or folder.name.removeprefix(name).rpartition("_")[0] == socket.gethostname()
