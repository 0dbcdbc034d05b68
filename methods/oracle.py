"""Our experts with the task given: what routing without a fault would reach."""

from __future__ import annotations

from typing import ClassVar

from evaluation.study import Planner, StagePlan
from methods.base import Borrowed


class Oracle(Borrowed):
    """Every question is answered by its own task's expert of `anchor_moe`, once that is learned."""

    name: ClassVar[str] = "oracle"
    usual: ClassVar[bool] = True

    def stages(self, planner: Planner) -> list[StagePlan]:
        files = self.expert_files(planner.tasks, planner.folders)
        return planner.by_own_task([planner.experts.ids[path] for path in files])
