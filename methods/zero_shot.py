"""The bare backbone, which learns nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from data.benchmark import Task
from data.folders import StudyFolders
from evaluation.study import Planner, StagePlan
from methods.base import Method
from model.moe.experts import NO_EXPERT


class ZeroShot(Method):
    """The same answers at every stage."""

    name: ClassVar[str] = "zero_shot"
    usual: ClassVar[bool] = True
    trains: ClassVar[bool] = False

    def expert_files(self, tasks: Sequence[Task], folders: StudyFolders) -> list[Path]:
        return []

    def stages(self, planner: Planner) -> list[StagePlan]:
        return planner.by_stage([NO_EXPERT] * len(planner.tasks))
