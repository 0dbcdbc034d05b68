"""Independent pieces of work side by side on one machine's cores: forked processes of one thread each.

Small models are bound by the number of their operations, which a second thread hardly speeds up, while a
second process doubles the throughput. A forked process shares the backbone's memory, and one thread makes the
result independent of the number of cores and of what runs beside it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, TypeVar

import torch

T = TypeVar("T")
PR_SET_PDEATHSIG = 1  # of prctl(2)


@dataclass(frozen=True)
class Running:
    """A piece of work that has begun."""

    number: int  # its place among the pieces
    process: ForkProcess
    pipe: Connection


def can_fork(device: torch.device, processes: int) -> bool:
    """Whether this process may fork others that compute: on a CPU, started alone, where that is safe."""
    return device.type == "cpu" and processes == 1 and sys.platform == "linux"


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def choose_jobs(asked: int | None, possible: bool, refusal: str, usual: bool = True) -> int:
    """How many pieces to run side by side: as asked, else one per core where that is possible and usual, or
    0, nothing forked.

    Raises:
        ValueError: less than 0, or asked for where it is not possible; `refusal` says what to do.
    """
    if asked is None:
        return count_cores() if possible and usual else 0
    if asked < 0 or (asked and not possible):
        raise ValueError(f"--jobs {asked}: {refusal}")
    return asked


def in_shares(work: Callable[[int, int], T], jobs: int) -> list[T]:
    """Results of `work(share, jobs)` for every share, all at the same time."""
    return run_forked([partial(work, share, jobs) for share in range(jobs)], jobs)


def run_forked(work: Sequence[Callable[[], T]], jobs: int) -> list[T]:
    """Results of all pieces, in order, of which at most `jobs` run at a time.

    The children die with this process. An error stops the other pieces.

    Raises:
        ValueError: a piece raised ValueError or OSError; the message is its own.
        ChildProcessError: a piece ended in any other way, such as by a signal.
    """
    results: dict[int, T] = {}
    waiting = list(enumerate(work))
    running: list[Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(*waiting.pop(0)))
            ready = wait([piece.pipe for piece in running])
            for piece in [piece for piece in running if piece.pipe in ready]:
                running.remove(piece)
                results[piece.number] = _result(piece)
    finally:
        for piece in running:
            piece.process.terminate()
            piece.process.join()
    return [results[number] for number in range(len(work))]


def die_with(parent: int) -> None:
    """End this forked process when its parent ends, at once if that has happened already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _start(number: int, work: Callable[[], T]) -> Running:
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, sending, os.getpid()))
    with warnings.catch_warnings():  # Python 3.12 warns of threads, which the child goes without
        warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
        process.start()
    sending.close()
    return Running(number, process, receiving)


def _child(work: Callable[[], T], pipe: Connection, parent: int) -> None:
    die_with(parent)
    torch.set_num_threads(1)  # the parent's other threads do not exist here
    try:
        pipe.send((work(), ""))
    except (ValueError, OSError) as error:
        pipe.send((None, str(error)))
    except KeyboardInterrupt:
        os._exit(130)


def _result(piece: Running) -> Any:
    try:
        value, error = piece.pipe.recv()
    except EOFError:
        value, error = None, None
    piece.process.join()
    if error is None:
        raise ChildProcessError(
            f"a process ended with status {piece.process.exitcode} (-9: killed, often for lack of memory); "
            "start again to go on from what is kept, with fewer --jobs if memory is short"
        )
    if error:
        raise ValueError(error)
    return value
