"""What this machine has left: memory, GPU memory, disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from data.doctor.findings import Level, Section

GB = 1e9
CGROUP = Path("/sys/fs/cgroup")


def check_memory(section: Section, needed: int, what: str) -> None:
    """Host memory, and GPU memory where there is a GPU, against bytes that must fit into each."""
    free = {"memory": free_memory()}
    if torch.cuda.is_available():
        free["GPU memory"] = torch.cuda.mem_get_info()[0]
    for name, there in free.items():
        if there is None:
            continue
        level = Level.OK if needed <= there else Level.PROBLEM
        more = "" if needed <= there else "; --bf16 True halves the LLM, or use a larger machine"
        section.add(level, name, f"{what} {size(needed)}, {size(there)} are free{more}")


def check_disk(section: Section, folder: Path, needed: int, what: str) -> None:
    """Whether `folder` can be written and its disk has room."""
    if not writable(folder):
        section.add(Level.PROBLEM, folder, "cannot be written; choose another folder")
        return
    there = shutil.disk_usage(_existing(folder)).free
    enough = needed <= there
    more = "" if enough else "; free some space or choose another folder"
    section.add(
        Level.OK if enough else Level.PROBLEM, folder, f"{what} {size(needed)}, {size(there)} are free{more}"
    )


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which may have to be made first."""
    return _existing(folder).is_dir() and os.access(_existing(folder), os.W_OK)


def _existing(folder: Path) -> Path:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return place


def free_memory() -> int | None:
    """Bytes that this process may still take (Linux): what the system has, or its control group allows."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        there = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    try:
        limit = int((CGROUP / "memory.max").read_text()) - int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no control group, or no limit ("max")
        return there
    return min(there, max(limit, 0))


def size(count: float) -> str:
    """Bytes for people: 3.2 GB, 480 MB, 12 kB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e3:.0f} kB"
