"""One expert trained on all tasks at once: the upper bound for a single expert."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from data.benchmark import Benchmark, Task
from data.folders import StudyFolders
from evaluation.study import Planner, StagePlan
from methods.base import Method, train_files
from train.cells import Cell


class Joint(Method):
    """Needs all data at once, so it has a last stage only."""

    name: ClassVar[str] = "joint"
    usual: ClassVar[bool] = True

    def cells(self, benchmark: Benchmark, folders: StudyFolders) -> list[Cell]:
        last = benchmark.tasks[-1].id
        place = folders.experts(self.name), None, folders.checkpoint(self.name, last)
        return [Cell(self.name, last, train_files(benchmark), *place, fresh=True, recipe=self)]

    def expert_files(self, tasks: Sequence[Task], folders: StudyFolders) -> list[Path]:
        return super().expert_files(tasks[-1:], folders)

    def stages(self, planner: Planner) -> list[StagePlan]:
        [file] = self.expert_files(planner.tasks, planner.folders)
        return planner.at_the_end(planner.experts.ids[file])
