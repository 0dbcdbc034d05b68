"""Faults at a chosen file operation of a job: the process is killed there, or its disk is full from there on.

The interpreter announces every opening, renaming and removal of a file. Operations are counted by what the
file belongs to, its phase, so that a fault can be put into the saving of an expert as surely as into the
encoding of clips, however short the phase is.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PHASES = ("encode", "train", "save", "answer", "merge")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND


@dataclass(frozen=True)
class Fault:
    """Where something happens, and what."""

    phase: str
    number: int  # of the operation within the phase, from 0
    kind: str  # "kill" here and now, "signal" the watcher, which kills a little later, or "full" disk
    size: int = 0  # bytes up to which files can still be written on the full disk


def phase_of(path: str, root: str) -> str | None:
    """What a file of a study is for; None for a file elsewhere, and for locks and probes."""
    if not path.startswith(root):
        return None
    rest, name = path[len(root) :], Path(path).name
    if name.startswith((".lock", ".writable")):
        return None
    if "/feature_store/" in rest:
        return "encode"
    if "_ckpt/" in rest:
        return "train"
    if "/experts/" in rest or "/anchors/" in rest:
        return "save"
    if "/results/" in rest:
        return "answer" if name.startswith("answers") else "merge"
    return None


def watch_files(root: Path, fault: Fault | None, tell: Callable[[], None]) -> Counter[str]:
    """Count this process's file operations below `root` from now on, and raise the fault; never undone."""
    seen: Counter[str] = Counter()
    prefix = str(root)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITING:
                return
        elif event in ("os.rename", "os.remove"):
            path = arguments[0]
        else:
            return
        if not isinstance(path, str | os.PathLike) or (phase := phase_of(os.fspath(path), prefix)) is None:
            return
        if fault and (phase, seen[phase]) == (fault.phase, fault.number):
            _raise_fault(fault, tell)
        seen[phase] += 1

    sys.addaudithook(hook)
    return seen


def _raise_fault(fault: Fault, tell: Callable[[], None]) -> None:
    if fault.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.kind == "signal":
        tell()
    else:  # every write beyond the limit fails with EFBIG, as on a full disk with ENOSPC
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.size, hard))
