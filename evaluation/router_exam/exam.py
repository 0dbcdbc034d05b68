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

_TEMPERATURES = [2.0 ** (power / 4) for power in range(-56, 17)]
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
class Temperatures:
    """What scores are divided by before the softmax."""

    known: float
    """Of questions in known words."""
    new: float
    """Of those in new words, which are compared in another space."""


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

    def answers(self, router: Router, asked: Iterable[Mapping[str, float]]) -> Answers:
        """Every distinct question once."""
        texts = sorted({text for questions in asked for text in questions})
        features = self.vectors.features(texts)
        none = torch.zeros(len(texts), dtype=torch.bool)
        new = none if router.new_words is None else router.new_words.among(features)
        return Answers.of(texts, router.route(features, texts=texts), new)

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

    def temperatures(self) -> Temperatures:
        """The likeliest for the training questions, and for the rewordings that anchors know if they do.

        Only those of questions that no other task asks more often: how tasks share a wording, which the roots
        of counts exaggerate, says nothing about how sure a wording can be told.
        """
        known = self._likeliest([task.train for task in self.tasks], new=False)
        reworded = [task.surely_reworded or task.train for task in self.tasks]
        return Temperatures(known, self._likeliest(reworded, new=True, otherwise=known))

    def _likeliest(self, asked: Sequence[Mapping[str, float]], new: bool, otherwise: float = 1.0) -> float:
        """Of the questions that are in new words or not, `otherwise` where there are none."""
        answers = self.answers(self.router, asked)
        own = [
            (torch.tensor(answers.scores[text], dtype=torch.float64), task, weight)
            for task, questions in enumerate(asked)
            for text, weight in questions.items()
            if answers.new[text] == new
        ]
        if not own:
            return otherwise
        scores, tasks = torch.stack([row for row, _, _ in own]), torch.tensor([task for _, task, _ in own])
        weights = torch.tensor([weight for _, _, weight in own], dtype=torch.float64)

        def surprise(temperature: float) -> float:
            each = torch.nn.functional.cross_entropy(scores / temperature, tasks, reduction="none")
            return float(weights @ each)

        return min(_TEMPERATURES, key=surprise)

    def confidences(
        self, asked: Iterable[Asked], temperatures: Temperatures
    ) -> Mapping[str, NDArray[np.float64]]:
        """Question -> share of every task. (T,)"""
        answers = self.answers(self.router, asked)
        return {
            text: torch.tensor(row, dtype=torch.float64)
            .div(temperatures.new if answers.new[text] else temperatures.known)
            .softmax(0)
            .numpy()
            for text, row in answers.scores.items()
        }

    def calibration(self, asked: Sequence[Asked], temperatures: Temperatures) -> Calibration:
        """Confidence in the chosen task against being right."""
        shares = self.confidences(asked, temperatures)
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
