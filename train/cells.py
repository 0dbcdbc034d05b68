"""The plan of a study: which experts are trained, from what, and where their files go.

A cell is one expert of one method; which cells a method has is said in its file in `methods/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.folders import anchor_file, expert_file
from train.recipe import Recipe


@dataclass(frozen=True)
class Cell:
    """One expert to train."""

    method: str  # name, as in methods/table.py
    task_id: int  # number in the file names
    data: tuple[Path, ...]  # training JSON files
    experts: Path  # folder of expert files
    anchors: Path | None  # folder of anchor files, None where nothing is routed
    checkpoint: Path  # folder of checkpoint and log
    start_from: Path | None = None  # expert file to continue (sequential), None for the configured start
    without_media: bool = False  # the blind baseline
    twin: Path | None = None  # expert of another method, taken over if its training was the same
    after_twin: bool = False  # worth waiting for: most of its method's experts can be taken over
    fresh: bool = False  # starts from nothing, whatever the configured start (joint)
    earlier: tuple[Path, ...] = ()  # training files of earlier tasks that the recipe draws on
    tasks: tuple[int, ...] = ()  # ids of all tasks of the study, in order
    recipe: Recipe = field(default_factory=Recipe)  # what the method changes in the training

    @property
    def title(self) -> str:
        """For progress bars and messages."""
        return f"{self.method} task {self.task_id}"

    @property
    def expert(self) -> Path:
        """The expert file."""
        return expert_file(self.experts, self.task_id)

    @property
    def anchor(self) -> Path | None:
        """The anchor file."""
        return anchor_file(self.anchors, self.task_id) if self.anchors else None

    @property
    def files(self) -> tuple[Path, ...]:
        """All training files whose questions may be used, in task order."""
        return (*self.earlier, *self.data)

    @property
    def carried(self) -> Path | None:
        """What is handed on beside the expert file, None for nothing."""
        return self.expert.with_suffix(self.recipe.carries) if self.recipe.carries else None

    @property
    def inherited(self) -> Path | None:
        """What the cell before handed on, None for nothing."""
        if self.start_from is None or not self.recipe.carries:
            return None
        return self.start_from.with_suffix(self.recipe.carries)


def source_files(cell: Cell, expert_init: str) -> list[Path]:
    """Expert files that a cell starts from."""
    if cell.start_from is not None:
        return [cell.start_from]
    if expert_init == "scratch" or cell.fresh:
        return []
    if expert_init == "previous":
        return [expert_file(cell.experts, cell.task_id - 1)] if cell.task_id else []
    return [expert_file(cell.experts, earlier) for earlier in range(cell.task_id)]


def independent(cells: Sequence[Cell], expert_init: str) -> list[list[Cell]]:
    """The cells of one seed in chains that need nothing of each other, so that they can be trained at once.

    A cell follows the one that makes an expert it starts from, or, where experts start from each other, a
    twin worth waiting for; any other cell begins a chain. An expert that starts from nothing waits for no
    twin: training it beside the others is sooner done.
    """
    chains: list[list[Cell]] = []
    for cell in cells:
        needed = set(source_files(cell, expert_init))
        if cell.after_twin and cell.twin and expert_init != "scratch":
            needed.add(cell.twin)
        for chain in chains:
            if any(before.expert in needed for before in chain):
                chain.append(cell)
                break
        else:
            chains.append([cell])
    return chains
