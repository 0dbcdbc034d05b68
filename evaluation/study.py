"""Every stage of every method: which answers are needed, and what accuracy matrix they give.

After task k the experts 0..k are there; they answer the test questions of tasks 0..k and of task k+1 (forward
transfer). An answer depends on sample and expert only, so all methods and stages share one set of distinct
answers.

Legend: T tasks, K stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from data.benchmark import Task
from data.folders import StudyFolders
from data.inputs import Inputs
from data.samples import Sample
from evaluation.answering import Answerer, Request
from evaluation.scoring.answers import score_answers
from evaluation.scoring.normalised import NO_ALIASES, Aliases
from evaluation.scoring.statistics import SampleScores
from model.moe.anchor_files import load_anchor
from model.moe.experts import NO_EXPERT
from model.moe.routing import Router
from model.moe.routing_records import RouterConfig, Routing


@dataclass(frozen=True)
class StagePlan:
    """What one method asks at one stage about one task's test samples."""

    stage: int  # position of the last task learned
    task: int  # position of the task asked about
    requests: tuple[Request, ...]
    routing: Routing | None = None


@dataclass
class MethodPlan:
    """All stages of one method; `missing` says why nothing can be asked."""

    name: str
    stages: list[StagePlan] = field(default_factory=list)
    missing: str = ""


@dataclass(frozen=True)
class Experts:
    """Expert files in one bank: each file has an id of its own there."""

    ids: dict[Path, int]


class Row(Protocol):
    """A method as evaluation sees it: the files beside `methods/base.py`."""

    @property
    def name(self) -> str:
        """In reports."""

    def expert_files(self, tasks: Sequence[Task], folders: StudyFolders) -> list[Path]:
        """The expert files that answering needs, in task order."""

    def anchor_files(self, tasks: Sequence[Task], folders: StudyFolders) -> list[Path]:
        """The anchor files that answering needs, in task order."""

    def stages(self, planner: Planner) -> list[StagePlan]:
        """Who answers what after every task; all files are there."""


class Planner:
    """Plans requests for one seed: the ways to answer that methods choose from."""

    def __init__(
        self,
        tasks: Sequence[Task],
        tests: Sequence[Sequence[Sample]],
        folders: StudyFolders,
        inputs: Inputs,
        experts: Experts,
        router: RouterConfig,
        answerer: Answerer,
    ) -> None:
        """tests: the test samples of every task, their clips in the feature store; router: of the flags."""
        self.tasks, self.tests, self.folders = tasks, tests, folders
        self.inputs, self.experts, self.router, self.answerer = inputs, experts, router, answerer

    def plan(self, row: Row) -> MethodPlan:
        """All stages of a method; a method without artifacts comes back with the reason in `missing`."""
        files = row.expert_files(self.tasks, self.folders) + row.anchor_files(self.tasks, self.folders)
        absent = [path for path in files if not path.is_file()]
        if absent:
            return MethodPlan(row.name, missing=f"{absent[0]} is missing")
        return MethodPlan(row.name, row.stages(self))

    def _cells(self) -> list[tuple[int, int]]:
        """(stage, task) pairs that are measured: i <= k, and k + 1 for forward transfer."""
        count = len(self.tasks)
        return [(k, i) for k in range(count) for i in range(min(k + 2, count))]

    def routed(
        self,
        experts: Sequence[Path],
        anchors: Sequence[Path],
        router: RouterConfig,
        *,
        without_media: bool = False,
    ) -> list[StagePlan]:
        """The anchors known at a stage choose each question's expert. experts, anchors: files in task order.

        Raises:
            ValueError: a damaged anchor, or `router` asks for what these experts or anchors cannot give.
        """
        known_anchors = [
            load_anchor(path, task.id, self.inputs.base_identity)
            for task, path in zip(self.tasks, anchors, strict=True)
        ]
        by_task = {task.id: self.experts.ids[path] for task, path in zip(self.tasks, experts, strict=True)}
        by_task[NO_EXPERT] = NO_EXPERT
        config = replace(router, modalities=("text",)) if without_media else router
        features = [self.inputs.routing(samples, without_media=without_media) for samples in self.tests]
        norms: list[Tensor | None] = [None] * len(self.tests)
        if config.router == "autonomy":  # columns in task order
            own = [self.experts.ids[path] for path in experts]
            norms = [self.answerer.activation_norms(samples, own, without_media) for samples in self.tests]
        plans = []
        for k, i in self._cells():
            known, found = known_anchors[: k + 1], norms[i]
            if found is not None:
                found = found[:, sorted(range(k + 1), key=lambda place: self.tasks[place].id)]
            routing = Router(known, config).route(features[i], norms=found)
            requests = tuple(
                Request(sample, by_task[task], without_media)
                for sample, task in zip(self.tests[i], routing.task_ids, strict=True)
            )
            plans.append(StagePlan(k, i, requests, routing))
        return plans

    def by_own_task(self, experts: Sequence[int]) -> list[StagePlan]:
        """The questions of task i are answered by `experts[i]`, a bank id, once that task is learned."""
        return [self._all_to(experts[i], k, i) for k, i in self._cells() if i <= k]

    def by_stage(self, experts: Sequence[int]) -> list[StagePlan]:
        """After task k `experts[k]`, a bank id, answers whatever the question."""
        return [self._all_to(experts[k], k, i) for k, i in self._cells()]

    def at_the_end(self, expert: int) -> list[StagePlan]:
        """One expert, which is there after the last task only."""
        count = len(self.tasks)
        return [self._all_to(expert, count - 1, i) for i in range(count)]

    def _all_to(self, expert: int, stage: int, task: int) -> StagePlan:
        return StagePlan(stage, task, tuple(Request(sample, expert) for sample in self.tests[task]))


@dataclass(frozen=True)
class StudyScores:
    """What one method of one seed got right."""

    matrix: list[list[float | None]]  # T x T percent, None where nothing was asked
    n: int  # samples of the last stage
    n_failed: int  # those of them without an answer
    samples: SampleScores  # the same cells sample by sample
    normalised: list[float | None]  # T percent of the last stage by normalised match


def score_study(
    plans: Sequence[StagePlan],
    answers: Sequence[Sequence[str]],
    count: int,
    *,
    drop_failed: bool = False,
    aliases: Aliases = NO_ALIASES,
) -> StudyScores:
    """Score the answers to the stage plans of a method.

    Args:
        plans, answers: stage plans of a method and the answers to their requests.
        count: number of tasks T.
        drop_failed: leave failed answers out of the denominator, as published, instead of counting them as
            wrong.
        aliases: what normalised match accepts beside the expected answers.
    """
    matrix: list[list[float | None]] = [[None] * count for _ in range(count)]
    samples = {}
    normalised: list[float | None] = [None] * count
    n = n_failed = 0
    for plan, texts in zip(plans, answers, strict=True):
        expected = [request.sample.answer for request in plan.requests]
        scores = score_answers(texts, expected)
        matrix[plan.stage][plan.task] = scores.accuracy_of_answered if drop_failed else scores.accuracy
        samples[plan.stage, plan.task] = scores.as_numbers(drop_failed=drop_failed)
        if plan.stage == count - 1:
            n += scores.n
            n_failed += scores.n_failed
            right = [aliases.matches(*pair) for pair in zip(texts, expected, strict=True)]
            loose = replace(scores, correct=np.array(right, dtype=bool))
            normalised[plan.task] = loose.accuracy_of_answered if drop_failed else loose.accuracy
    return StudyScores(matrix, n, n_failed, samples, normalised)
