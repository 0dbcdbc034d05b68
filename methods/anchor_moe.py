"""The method of this project: an expert and an anchor per task; the data pick the expert."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from data.benchmark import Benchmark, Task
from data.folders import StudyFolders, stored_anchor
from evaluation.study import Planner, StagePlan
from methods.base import OURS, Method, single_cells
from train.cells import Cell


class AnchorMoE(Method):
    """Experts never touched again, chosen by the similarity of a question to the tasks' anchors."""

    name: ClassVar[str] = OURS
    usual: ClassVar[bool] = True
    without_media: ClassVar[bool] = False

    def cells(self, benchmark: Benchmark, folders: StudyFolders) -> list[Cell]:
        return single_cells(self, benchmark, folders, without_media=self.without_media)

    def anchor_files(self, tasks: Sequence[Task], folders: StudyFolders) -> list[Path]:
        return [stored_anchor(folders.anchors(self.name), task.id) for task in tasks]

    def stages(self, planner: Planner) -> list[StagePlan]:
        tasks, folders = planner.tasks, planner.folders
        files = self.expert_files(tasks, folders), self.anchor_files(tasks, folders)
        return planner.routed(*files, planner.router, without_media=self.without_media)
