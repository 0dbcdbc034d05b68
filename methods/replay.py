"""Experience replay: questions of earlier tasks are kept and mixed into those of the new one.

Chaudhry et al., On Tiny Episodic Memories in Continual Learning, arXiv 1902.10486; Rolnick et al., arXiv
1811.11682. The loss stays the NLL per answer token, over the new task's questions and the kept ones alike,
each seen once an epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from data.files import read_json, write_json_atomic
from data.samples import Sample
from methods.base import Continued
from train.cells import Cell

if TYPE_CHECKING:
    from train.workshop import Workshop


@dataclass(frozen=True)
class Replay(Continued):
    """A buffer of a fixed number of questions, shared evenly by the tasks so far, chosen by the seed alone.

    `expert_task_k.replay.json` holds the buffer after task k: training file -> indices, sorted.
    """

    name: ClassVar[str] = "replay"
    carries: ClassVar[str] = ".replay.json"
    rehearses: ClassVar[bool] = True

    replay_samples: int = field(default=80, metadata={"help": "questions that replay keeps in all (80)"})

    def __post_init__(self) -> None:
        if self.replay_samples < 1:
            raise ValueError(f"--replay_samples: got {self.replay_samples}, expected at least 1")

    def questions(self, cell: Cell, counts: Mapping[Path, int]) -> int:
        before = [counts.get(path, 0) for path in cell.earlier]
        return super().questions(cell, counts) + sum(map(len, buffer(before, self.replay_samples, 0)))

    def choose(self, cell: Cell, samples: Sequence[Sample]) -> list[Sample]:
        """The buffer that the task before left, then the questions of this one."""
        if cell.inherited is None:
            return list(samples)
        kept = {name: set(indices) for name, indices in read_json(cell.inherited).items()}
        return [s for s in samples if s.source in cell.data or s.index in kept.get(s.source.name, ())]

    def finish(self, cell: Cell, shop: Workshop, samples: Sequence[Sample]) -> None:
        if not shop.accelerator.is_main_process:
            return
        assert cell.carried is not None
        counts = [len(read_json(path)) for path in cell.files]
        kept = buffer(counts, self.replay_samples, shop.config.seed)
        write_json_atomic(
            cell.carried, {path.name: chosen for path, chosen in zip(cell.files, kept, strict=True)}
        )


def buffer(counts: Sequence[int], size: int, seed: int) -> list[list[int]]:
    """Which questions are kept of each task, sorted indices: `size` in all, or everything if that is less.

    Shares differ by one at most unless a task has too few; what is kept of a task is a subset of what was
    kept of it before. counts: questions of every task so far.
    """
    shares = [0] * len(counts)
    for _ in range(min(size, sum(counts))):  # one after another to the task with the smallest share
        open_tasks = [task for task, count in enumerate(counts) if shares[task] < count]
        shares[min(open_tasks, key=lambda task: shares[task])] += 1
    kept = []
    for task, (count, share) in enumerate(zip(counts, shares, strict=True)):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + task))
        kept.append(sorted(order[:share].tolist()))
    return kept
