"""The plan of a study: which experts are trained, from what, and where their files go.

A cell is one expert of one method. `anchor_moe` is the method of this project; the others are the rows that
give its numbers meaning: `sequential` fine-tunes one expert task after task, `joint` trains one on all tasks
at once, `blind` trains the anchor experts without video and audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.folders import StudyFolders, anchor_file, expert_file
from data.samples import Benchmark

TRAINED_METHODS = ("anchor_moe", "sequential", "joint", "blind")
EVALUATED_METHODS = ("oracle", "zero_shot")  # rows of evaluation that need no training


@dataclass(frozen=True)
class Cell:
    """One expert to train."""

    method: str  # one of TRAINED_METHODS
    task_id: int  # number in the file names
    data: tuple[Path, ...]  # training JSON files
    experts: Path  # folder of expert files
    anchors: Path | None  # folder of anchor files, None where nothing is routed
    checkpoint: Path  # folder of checkpoint and log
    start_from: Path | None = None  # expert file to continue (sequential), None for the configured start
    without_media: bool = False  # the blind baseline
    twin: Path | None = None  # expert of another method, taken over if its training was the same

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


def default_methods(preset: str) -> tuple[str, ...]:
    """The comparison rows are on by default for the tiny backbone only."""
    return TRAINED_METHODS if preset == "tiny" else ("anchor_moe",)


def study_cells(benchmark: Benchmark, methods: tuple[str, ...], folders: StudyFolders) -> list[Cell]:
    """All cells of a study for one seed, in the order in which they must be trained.

    Raises ValueError for an unknown method or a task without training file.
    """
    cells: list[Cell] = []
    for method in methods:
        if method not in TRAINED_METHODS:
            raise ValueError(
                f"method {method!r}: nothing to train; expected some of {', '.join(TRAINED_METHODS)}"
            )
        cells += _method_cells(benchmark, method, folders)
    return cells


def independent(cells: Sequence[Cell], expert_init: str) -> list[list[Cell]]:
    """The cells of one seed in chains that need nothing of each other, so that they can be trained at once.

    An expert that starts from nothing is a chain of its own; those that start from earlier experts
    (`sequential`, and all but `joint` with another `expert_init` than "scratch") follow them in one chain.
    There `sequential` follows the experts of `anchor_moe`, of which it may take some over.
    """
    chains: list[list[Cell]] = []
    for cell in cells:
        scratch = expert_init == "scratch"
        alone = cell.method == "joint" or (cell.method != "sequential" and scratch)
        before = chains[-1][-1] if chains else None
        follows = before is not None and (
            before.method == cell.method
            or (cell.method == "sequential" and before.method == "anchor_moe" and not scratch)
        )
        if alone or not follows:
            chains.append([])
        chains[-1].append(cell)
    return chains


def _method_cells(benchmark: Benchmark, method: str, folders: StudyFolders) -> list[Cell]:
    files = []
    for task in benchmark.tasks:
        if task.train is None:
            raise ValueError(f"{benchmark.path}: task {task.id} ({task.name}) names no 'train' file; add one")
        files.append(task.train)
    experts, anchors = folders.experts(method), folders.anchors(method)
    if method == "joint":
        last = benchmark.tasks[-1].id
        return [Cell(method, last, tuple(files), experts, None, folders.checkpoint(method, last))]
    cells = []
    for position, (task, file) in enumerate(zip(benchmark.tasks, files, strict=True)):
        before = benchmark.tasks[position - 1].id if position else None
        sequential = method == "sequential"
        cells.append(
            Cell(
                method,
                task.id,
                (file,),
                experts,
                None if sequential else anchors,
                folders.checkpoint(method, task.id),
                start_from=expert_file(experts, before) if sequential and before is not None else None,
                without_media=method == "blind",
                twin=expert_file(folders.experts("anchor_moe"), task.id) if sequential else None,
            )
        )
    return cells
