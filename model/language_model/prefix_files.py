"""Prefixes on disk, for one process and those forked from it: never used when damaged, never in a run's way.

    ROOT/prefixes_HOST_ID/              locked on `.lock` while its process or one forked from it lives
    ROOT/prefixes_HOST_ID/KEY_PID.pt    one prefix, written by this process

All of it can be computed again: a damaged file is removed, and a disk that is full is given back what this
process took of it. The folder goes with what made it, or after a kill when the next one is opened beside it.
"""

import logging
import os
import weakref
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path

import torch
from torch import Tensor

from model.moe.pt_files import load_pt
from model.owned_folders import LOCK, left_folders, make_owned

log = logging.getLogger(__name__)

NAME = "prefixes_"


def open_files(root: Path, bound: int) -> "PrefixFiles | None":
    """A new folder below `root`, which is swept first; None for a bound of 0, and, with a warning, where none
    can be made.
    """
    sweep(root)
    if not bound:
        return None
    try:
        return PrefixFiles(root, bound)
    except OSError as error:
        log.warning("%s: no prefixes are kept on disk (%s); they are computed again", root, error)
        return None


class PrefixFiles:
    """A temporary folder with a file per prefix.

    Forked processes read what was written before, write under names of their own, and each count their own
    bytes from there on.

    Args:
        bound: bytes of prefixes that a process writes at most.

    Raises:
        OSError: the folder cannot be made, or its file system has no locks.
    """

    def __init__(self, root: Path, bound: int) -> None:
        self.bound, self.size = bound, 0
        self._files: dict[str, tuple[Path, torch.device, int]] = {}
        self._stopped = False
        self._writer = os.getpid()
        self._folder, lock = make_owned(root, NAME)
        self._end = weakref.finalize(self, _end, self._folder, lock, self._writer)

    def read(self, key: str) -> Tensor | None:
        """A stored prefix, on the device that it came from; None where there is none that can be used."""
        if key not in self._files:
            return None
        path, device, size = self._files[key]
        with suppress(OSError):
            os.utime(self._folder)  # in use
        prefix = read_prefix(path)
        if prefix is None:
            del self._files[key]
            self.size -= size
            return None
        return prefix.to(device)

    def write(self, key: str, prefix: Tensor) -> None:
        """Store a prefix where there is room. If the disk has none, this process no longer uses it."""
        if self._stopped or key in self._files or self.size + prefix.nbytes > self.bound:
            return
        if self._writer != os.getpid():
            self._writer = os.getpid()  # forked: its files go when it ends, the folder with the first process
            Finalize(None, self._end, exitpriority=0)
        path = self._folder / f"{key}_{self._writer}.pt"
        on_cpu = prefix.cpu()
        try:
            write_prefix(path, on_cpu)
        except (OSError, RuntimeError) as error:
            log.warning("%s: not written (%s); prefixes are no longer kept on disk", path, _reason(error))
            self.clear()
            self._stopped = True
            return
        self._files[key] = path, prefix.device, prefix.nbytes
        self.size += prefix.nbytes

    def clear(self) -> None:
        """Forget all prefixes and remove those that this process wrote."""
        _remove_own(self._folder)
        self._files.clear()
        self.size = 0


def write_prefix(path: Path, prefix: Tensor) -> None:
    """Write a prefix on the CPU; not flushed, since only this process and those forked from it read it.

    Raises:
        OSError, RuntimeError: torch's way to say that the file could not be written; a part may be there.
    """
    with path.open("wb") as file:
        torch.save(prefix, file)


def read_prefix(path: Path) -> Tensor | None:
    """A prefix, on the CPU; None for a damaged file, which is removed with a warning."""
    try:
        prefix: Tensor = load_pt(path)
        return prefix
    except Exception as error:  # damage comes up anywhere in torch
        log.warning("%s is damaged (%s); the prefix is computed again", path, _reason(error))
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return None


def sweep(root: Path) -> None:
    """Remove the folders of killed processes below `root`, never one that a living process uses."""
    for folder in left_folders(root, NAME):
        _remove(folder)


def _end(folder: Path, lock: int, owner: int) -> None:
    """Leave a folder: the process that made it removes it, one forked from that only its own files."""
    os.close(lock)
    if os.getpid() == owner:
        _remove(folder)
    else:
        _remove_own(folder)


def _remove(folder: Path) -> None:
    """Remove a folder with what this file puts there; anything else stays, and the folder with it."""
    for path in (*folder.glob("*.pt"), folder / LOCK):
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        folder.rmdir()


def _remove_own(folder: Path) -> None:
    for path in folder.glob(f"*_{os.getpid()}.pt"):
        with suppress(OSError):
            path.unlink()


def _reason(error: Exception) -> str:
    """The first line of what went wrong; the system's where torch closed its archive anew over it."""
    if isinstance(error.__context__, OSError):
        error = error.__context__
    return str(error).partition("\n")[0] or type(error).__name__
