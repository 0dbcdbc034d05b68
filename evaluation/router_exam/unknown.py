"""One task held out: are its questions far from the tasks that are known?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evaluation.router_exam.exam import Exam
from evaluation.router_exam.material import TEXT, Asked
from evaluation.scoring.separation import auroc, coverage
from model.moe.routing import Router

_FARTHEST = 1e300  # stands for an infinite distance


@dataclass(frozen=True)
class HeldOut:
    """What happens to the questions of a task that was never learned, and to those of the others."""

    task: str
    auroc: float
    """That a question of this task is farther than one of the others."""
    coverage: float
    """Percent found at 5 % false alarms."""
    flagged: float
    """Percent of this task's questions that --abstain leaves to the bare backbone, at the router's level."""
    alarms: float
    """Percent of the other tasks' questions that it leaves there."""
    right: float
    """Percent of the other tasks' questions sent to their own task, without abstaining."""
    right_abstaining: float
    """The same with --abstain, where an abstention counts as wrong."""


def held_out(exam: Exam, task: int) -> HeldOut:
    """Leave one task out, ask the test questions of all."""
    ids = [other for other in range(len(exam.tasks)) if other != task]
    router = exam.router_of(ids, replace(exam.config, abstain=False))
    asked = [one.test for one in exam.tasks]
    answers = exam.answers(router, asked)
    distance = {text: _distance(exam, router, text) for text in answers.chosen}
    near = [distance[text] for other in ids for text in _every(asked[other])]
    far = [distance[text] for text in _every(asked[task])]
    known = [(other, text) for other in ids for text in _every(asked[other])]
    right = [answers.chosen[text] == other for other, text in known]
    alarms = [answers.far[text] for _, text in known]
    return HeldOut(
        exam.tasks[task].name,
        auroc(near, far),
        100 * coverage(near, far),
        _percent([answers.far[text] for text in _every(asked[task])]),
        _percent(alarms),
        _percent(right),
        _percent([ok and not alarm for ok, alarm in zip(right, alarms, strict=True)]),
    )


def _distance(exam: Exam, router: Router, text: str) -> float:
    """How far a question is from the nearest known task, in units of the distances usual in it."""
    sample = {TEXT: exam.vectors.rows([text])[0]}
    nearest = min(router.far_check.relative_distance(task, sample) for task in router.candidates)
    return min(nearest, _FARTHEST)


def _every(asked: Asked) -> list[str]:
    return [text for text, count in asked.items() for _ in range(count)]


def _percent(flags: Sequence[bool]) -> float:
    return 100 * sum(flags) / len(flags)
