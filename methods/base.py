"""What a method decides, in training and in evaluation: the one interface of the files beside this one.

In training: which experts it has (`cells`), and what is special about learning them (the hooks of
`train.recipe.Recipe`, of which a method is one). In evaluation: which files it needs, and which expert
answers which question after every task (`stages`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from data.benchmark import Benchmark, Task
from data.folders import StudyFolders, expert_file, stored_anchor, stored_expert
from evaluation.expert_loading import EXPERTS
from evaluation.study import Planner, StagePlan
from model.moe.routing_records import RouterConfig
from train.cells import Cell
from train.recipe import Recipe

OURS = "anchor_moe"  # whose experts others are compared with, and may take over


@dataclass(frozen=True)
class Method(Recipe):
    """A row of the table. Fields are settings: each is a flag of its name, with the help of its metadata."""

    name: ClassVar[str]  # in flags, folders and reports
    usual: ClassVar[bool] = False  # whether the tiny backbone's main job has it
    trains: ClassVar[bool] = True  # whether it has experts of its own
    make: ClassVar[str] = EXPERTS  # of its expert files; those of one make answer side by side

    def cells(self, benchmark: Benchmark, folders: StudyFolders) -> list[Cell]:
        """The experts to train for one seed, in order. Raises ValueError for a task without training file."""
        return []

    def expert_files(self, tasks: Sequence[Task], folders: StudyFolders) -> list[Path]:
        """The expert files that answering needs, in task order."""
        return [stored_expert(folders.experts(self.name), task.id) for task in tasks]

    def anchor_files(self, tasks: Sequence[Task], folders: StudyFolders) -> list[Path]:
        """The anchor files that answering needs, in task order."""
        return []

    def stages(self, planner: Planner) -> list[StagePlan]:
        """Who answers what after every task; all files of the method are there."""
        raise NotImplementedError


class Borrowed(Method):
    """Trains nothing and answers with the experts of `anchor_moe`."""

    trains: ClassVar[bool] = False

    def expert_files(self, tasks: Sequence[Task], folders: StudyFolders) -> list[Path]:
        return [stored_expert(folders.experts(OURS), task.id) for task in tasks]

    def anchor_files(self, tasks: Sequence[Task], folders: StudyFolders) -> list[Path]:
        return [stored_anchor(folders.anchors(OURS), task.id) for task in tasks]


class Rerouted(Borrowed):
    """Another rule than that of the flags chooses among them."""

    def router(self, asked: RouterConfig) -> RouterConfig:
        """The rule, where the flags ask for `asked`: what it does not fix is as there."""
        raise NotImplementedError

    def stages(self, planner: Planner) -> list[StagePlan]:
        """Raises ValueError where the experts or anchors do not allow the rule."""
        tasks, folders = planner.tasks, planner.folders
        files = self.expert_files(tasks, folders), self.anchor_files(tasks, folders)
        try:
            return planner.routed(*files, self.router(planner.router))
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}; or leave the method out of --methods") from error


class Continued(Method):
    """One expert that goes on learning task after task; after task k its k-th file answers everything.

    The first task is learned as by `anchor_moe`, whose expert is taken over where it is already there.
    """

    waits: ClassVar[bool] = False  # for the experts of anchor_moe, because more than the first can be taken
    rehearses: ClassVar[bool] = False  # whether `choose` draws on questions of earlier tasks

    def cells(self, benchmark: Benchmark, folders: StudyFolders) -> list[Cell]:
        files, ids = train_files(benchmark), tuple(task.id for task in benchmark.tasks)
        experts = folders.experts(self.name)
        return [
            Cell(
                self.name,
                task,
                (files[place],),
                experts,
                None,
                folders.checkpoint(self.name, task),
                start_from=expert_file(experts, ids[place - 1]) if place else None,
                twin=expert_file(folders.experts(OURS), task),
                after_twin=self.waits,
                earlier=files[:place] if self.rehearses else (),
                tasks=ids,
                recipe=self,
            )
            for place, task in enumerate(ids)
        ]

    def plain(self, cell: Cell) -> bool:
        """The first task is learned as by anybody."""
        return cell.start_from is None

    def stages(self, planner: Planner) -> list[StagePlan]:
        files = self.expert_files(planner.tasks, planner.folders)
        return planner.by_stage([planner.experts.ids[path] for path in files])


def train_files(benchmark: Benchmark) -> tuple[Path, ...]:
    """The training file of every task. Raises ValueError for a task without one."""
    files = []
    for task in benchmark.tasks:
        if task.train is None:
            raise ValueError(f"{benchmark.path}: task {task.id} ({task.name}) names no 'train' file; add one")
        files.append(task.train)
    return tuple(files)


def check_weight(name: str, value: float) -> None:
    """Raise ValueError for a weight of a loss that is negative or not finite."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"--{name}: got {value}, expected a finite number of at least 0")


def single_cells(
    method: Method, benchmark: Benchmark, folders: StudyFolders, *, without_media: bool = False
) -> list[Cell]:
    """One expert and one anchor per task, each from the configured start."""
    ids = tuple(task.id for task in benchmark.tasks)
    return [
        Cell(
            method.name,
            task,
            (file,),
            folders.experts(method.name),
            folders.anchors(method.name),
            folders.checkpoint(method.name, task),
            without_media=without_media,
            tasks=ids,
            recipe=method,
        )
        for task, file in zip(ids, train_files(benchmark), strict=True)
    ]
