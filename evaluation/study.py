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

import numpy as np
from torch import Tensor

from data.benchmark import Task
from data.folders import StudyFolders, stored_anchor, stored_expert
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

METHODS = ("anchor_moe", "oracle", "sequential", "joint", "zero_shot", "blind")


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


def expert_files(tasks: Sequence[Task], method: str, folders: StudyFolders) -> list[Path]:
    """The expert files that a method needs, in task order."""
    if method == "zero_shot":
        return []
    source = "anchor_moe" if method == "oracle" else method
    chosen = tasks[-1:] if method == "joint" else tasks
    return [stored_expert(folders.experts(source), task.id) for task in chosen]


class Planner:
    """Plans requests for one seed."""

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
        """tests: the test samples of every task, their clips in the feature store."""
        self.tasks, self.tests, self.folders = tasks, tests, folders
        self.inputs, self.experts, self.router, self.answerer = inputs, experts, router, answerer

    def plan(self, method: str) -> MethodPlan:
        """All stages of a method; a method without artifacts comes back with the reason in `missing`."""
        files = expert_files(self.tasks, method, self.folders)
        if method in ("anchor_moe", "oracle", "blind"):
            source = "anchor_moe" if method == "oracle" else method
            files = files + [stored_anchor(self.folders.anchors(source), task.id) for task in self.tasks]
        absent = [path for path in files if not path.is_file()]
        if absent:
            return MethodPlan(method, missing=f"{absent[0]} is missing")
        build = {"anchor_moe": self._routed, "blind": self._routed, "oracle": self._oracle}.get(
            method, self._fixed
        )
        return MethodPlan(method, build(method))

    def _cells(self) -> list[tuple[int, int]]:
        """(stage, task) pairs that are measured: i <= k, and k + 1 for forward transfer."""
        count = len(self.tasks)
        return [(k, i) for k in range(count) for i in range(min(k + 2, count))]

    def _routed(self, method: str) -> list[StagePlan]:
        blind = method == "blind"
        anchors = [
            load_anchor(
                stored_anchor(self.folders.anchors(method), task.id), task.id, self.inputs.base_identity
            )
            for task in self.tasks
        ]
        files = expert_files(self.tasks, method, self.folders)
        by_task = {task.id: self.experts.ids[path] for task, path in zip(self.tasks, files, strict=True)}
        by_task[NO_EXPERT] = NO_EXPERT
        config = replace(self.router, modalities=("text",)) if blind else self.router
        features = [self.inputs.routing(samples, without_media=blind) for samples in self.tests]
        norms: list[Tensor | None] = [None] * len(self.tests)
        if config.router == "autonomy":  # columns are the bank's ids; the tasks' are picked below
            norms = [self.answerer.activation_norms(samples, blind) for samples in self.tests]
        plans = []
        for k, i in self._cells():
            known, found = anchors[: k + 1], norms[i]
            if found is not None:
                found = found[:, [by_task[task] for task in sorted(anchor.task_id for anchor in known)]]
            routing = Router(known, config).route(features[i], norms=found)
            requests = tuple(
                Request(sample, by_task[task], blind)
                for sample, task in zip(self.tests[i], routing.task_ids, strict=True)
            )
            plans.append(StagePlan(k, i, requests, routing))
        return plans

    def _oracle(self, method: str) -> list[StagePlan]:
        files = expert_files(self.tasks, method, self.folders)
        return [
            StagePlan(k, i, tuple(Request(sample, self.experts.ids[files[i]]) for sample in self.tests[i]))
            for k, i in self._cells()
            if i <= k
        ]

    def _fixed(self, method: str) -> list[StagePlan]:
        """One expert per stage whatever the question: sequential, joint (last stage only), bare backbone."""
        files = expert_files(self.tasks, method, self.folders)
        last = len(self.tasks) - 1
        plans = []
        for k, i in [(last, i) for i in range(last + 1)] if method == "joint" else self._cells():
            expert = NO_EXPERT if not files else self.experts.ids[files[min(k, len(files) - 1)]]
            plans.append(StagePlan(k, i, tuple(Request(sample, expert) for sample in self.tests[i])))
        return plans


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
