"""One router put to one benchmark's questions: right or wrong, in stages, in any order, from few questions.

Letters: T tasks, N samples.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from data.doctor.questions import text_bound
from evaluation.router_exam.material import Answers, Asked, TaskQuestions, Vectors, bare_anchor
from evaluation.scoring.routing import RoutingRecord, RoutingScores, score_routing
from evaluation.scoring.separation import Calibration, calibration
from model.moe.anchors import Anchor
from model.moe.routing import Router, RouterConfig

_TEMPERATURES = [2.0**power for power in range(-14, 5)]
ORDERS = 24


@dataclass(frozen=True)
class Spread:
    """Several runs of one thing, in percent."""

    mean: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return Spread(sum(values) / len(values), min(values), max(values))


@dataclass(frozen=True)
class Exam:
    """A router's configuration, the questions of T tasks and their anchors, in the order of the tasks."""

    config: RouterConfig
    tasks: Sequence[TaskQuestions]
    vectors: Vectors
    anchors: Sequence[Anchor]

    @cached_property
    def router(self) -> Router:
        """The router that knows all tasks."""
        return self.router_of(range(len(self.tasks)))

    def router_of(self, known: Iterable[int], config: RouterConfig | None = None) -> Router:
        """A router that knows some tasks."""
        ids = sorted(known)
        texts: dict[str, Counter[int]] = {}
        for task in ids:
            for text, count in self.tasks[task].train.items():
                texts.setdefault(text, Counter())[task] += count
        return Router([self.anchors[task] for task in ids], config or self.config, texts)

    def answers(self, router: Router, asked: Iterable[Asked]) -> Answers:
        """Every distinct question once."""
        texts = sorted({text for questions in asked for text in questions})
        return Answers.of(texts, router.route(self.vectors.features(texts), texts=texts))

    def score(self, asked: Sequence[Asked]) -> RoutingScores:
        """Questions of each task, routed among all tasks; tasks without questions do not count."""
        return self._score(self.router, range(len(self.tasks)), asked)

    def _score(self, router: Router, ids: Iterable[int], asked: Sequence[Asked]) -> RoutingScores:
        ids = list(ids)
        chosen = self.answers(router, asked).chosen
        pairs = [
            (task, chosen[text], count)
            for task, questions in zip(ids, asked, strict=True)
            for text, count in questions.items()
        ]
        true = [task for task, _, count in pairs for _ in range(count)]
        return score_routing(
            RoutingRecord(true, [own for _, own, count in pairs for _ in range(count)]),
            range(len(self.tasks)),
        )

    # -- stages and orders

    def stages(self) -> list[dict[str, float]]:
        """After each task, in order: macro and micro among the tasks known so far."""
        found = [self._stage(range(count)) for count in range(1, len(self.tasks) + 1)]
        return [{"macro": scores.macro, "micro": scores.micro} for scores in found]

    def _stage(self, known: Iterable[int]) -> RoutingScores:
        ids = sorted(known)
        return self._score(self.router_of(ids), ids, [self.tasks[task].test for task in ids])

    def orders(self, seed: int = 0) -> dict[str, Spread]:
        """All orders of the tasks, or ORDERS sampled ones: the last stage, and the mean over stages; macro.

        What a stage gets right hangs on the set of tasks alone; the last column shows that it does.
        """
        every = range(len(self.tasks))
        if math.factorial(len(self.tasks)) <= ORDERS:
            orders = list(itertools.permutations(every))
        else:
            rng = random.Random(seed)
            orders = [tuple(rng.sample(every, len(self.tasks))) for _ in range(ORDERS)]
        sets = {frozenset(order[:count]) for order in orders for count in range(1, len(order) + 1)}
        macro = {known: self._stage(known).macro for known in sets}
        last = [self._in_order(order) for order in orders]
        over = [
            sum(macro[frozenset(order[:count])] for count in range(1, len(order) + 1)) / len(order)
            for order in orders
        ]
        return {"last_stage": Spread.of(last), "mean_over_stages": Spread.of(over)}

    def _in_order(self, order: Sequence[int]) -> float:
        """Macro accuracy if the tasks had been learned, and numbered, in this order."""
        tasks = [self.tasks[task] for task in order]
        anchors = [
            Anchor(new, old.base_identity, old.means, old.stats)
            for new, old in enumerate(self.anchors[task] for task in order)
        ]
        return Exam(self.config, tasks, self.vectors, anchors).score([task.test for task in tasks]).macro

    # -- confidence

    def temperature(self) -> float:
        """What scores are divided by before the softmax: the likeliest for the training questions."""
        return min(_TEMPERATURES, key=lambda value: self._surprise(value))

    def _surprise(self, temperature: float) -> float:
        train = [task.train for task in self.tasks]
        shares = self.confidences(train, temperature)
        return -sum(
            count * math.log(max(1e-12, float(shares[text][task])))
            for task, questions in enumerate(train)
            for text, count in questions.items()
        )

    def confidences(self, asked: Iterable[Asked], temperature: float) -> Mapping[str, NDArray[np.float64]]:
        """Question -> share of every task. (T,)"""
        scores = self.answers(self.router, asked).scores
        return {
            text: torch.tensor(row, dtype=torch.float64).div(temperature).softmax(0).numpy()
            for text, row in scores.items()
        }

    def calibration(self, asked: Sequence[Asked], temperature: float) -> Calibration:
        """Confidence in the chosen task against being right."""
        shares = self.confidences(asked, temperature)
        rows = [
            (float(shares[text].max()), int(shares[text].argmax()) == task)
            for task, questions in enumerate(asked)
            for text, count in questions.items()
            for _ in range(count)
        ]
        return calibration([one for one, _ in rows], [right for _, right in rows])

    # -- few questions

    def few(self, number: int, seeds: Sequence[int]) -> dict[str, Spread]:
        """Anchors of `number` random training questions of each task (all where there are fewer)."""
        found = []
        for seed in seeds:
            rng = random.Random(seed)
            anchors = []
            for task, questions in enumerate(self.tasks):
                texts = sorted(Counter(questions.train).elements())
                some = rng.sample(texts, min(number, len(texts)))
                anchors.append(bare_anchor(task, self.vectors.rows(some), self.vectors.kind))
            exam = Exam(self.config, self.tasks, self.vectors, anchors)
            found.append(exam.score([task.test for task in self.tasks]))
        return {
            "macro": Spread.of([scores.macro for scores in found]),
            "micro": Spread.of([scores.micro for scores in found]),
        }


def bound(asked: Sequence[Asked]) -> dict[str, float]:
    """The best that any function of the exact text can reach."""
    return text_bound([list(Counter(questions).elements()) for questions in asked])
