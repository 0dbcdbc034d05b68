"""Our experts with the task given: what routing without a fault would reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from data.benchmark import Task
from data.folders import StudyFolders, stored_anchor, stored_expert
from evaluation.study import Planner, StagePlan
from methods.base import OURS, Method


class Oracle(Method):
    """Every question is answered by its own task's expert of `anchor_moe`, once that is learned."""

    name: ClassVar[str] = "oracle"
    usual: ClassVar[bool] = True
    trains: ClassVar[bool] = False

    def expert_files(self, tasks: Sequence[Task], folders: StudyFolders) -> list[Path]:
        return [stored_expert(folders.experts(OURS), task.id) for task in tasks]

    def anchor_files(self, tasks: Sequence[Task], folders: StudyFolders) -> list[Path]:
        return [stored_anchor(folders.anchors(OURS), task.id) for task in tasks]

    def stages(self, planner: Planner) -> list[StagePlan]:
        files = self.expert_files(planner.tasks, planner.folders)
        return planner.by_own_task([planner.experts.ids[path] for path in files])
