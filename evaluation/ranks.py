"""Evaluation on several processes: which one this is, and waiting for the others.

Launchers (torchrun, srun with torchrun) set RANK and WORLD_SIZE. The processes share nothing but files, so
that gloo is enough, with GPUs too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from data.parallel import can_fork, choose_jobs, count_cores

PATIENCE = timedelta(days=30)  # a launcher ends all processes when one fails, so that nobody waits in vain


@dataclass(frozen=True)
class Ranks:
    """One process among those of a launch."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.world > 1:
            distributed.barrier()


@contextlib.contextmanager
def launched() -> Iterator[Ranks]:
    """This process among those that the launcher started; alone without a launcher."""
    ranks = Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if ranks.world == 1:
        yield ranks
        return
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield ranks
    finally:
        distributed.destroy_process_group()


def fix_threads(asked: int | None, preset: str) -> int:
    """Set the CPU threads of this process and return their number; the bits of an answer depend on it.

    It does not depend on the number of processes, nor on what a launcher sets: `asked`, else 1 with the tiny
    backbone, which more threads hardly speed up, else one per core.

    Raises ValueError for less than 1.
    """
    if asked is not None and asked < 1:
        raise ValueError(f"--threads: got {asked}, expected at least 1")
    threads = asked or (1 if preset == "tiny" else count_cores())
    torch.set_num_threads(threads)
    return threads


def count_jobs(asked: int | None, threads: int, device: torch.device, ranks: Ranks) -> int:
    """Forked processes that encode and answer side by side; 0 for none. By default one per core where each
    has one thread, so that the bits are the same.

    Raises ValueError where they are asked for and cannot be had.
    """
    return choose_jobs(
        asked,
        threads == 1 and can_fork(device, ranks.world),
        "questions are answered side by side in one launch on a CPU only, with --threads 1; leave the flag "
        "out (GPUs: torchrun, docs/cluster.md)",
    )
