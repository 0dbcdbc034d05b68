"""What a router is examined on: the questions of every task, and one vector per distinct text.

Letters: N samples, V distinct texts, W feature width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.moe.anchors import Anchor, ModalityStats, scatter_space
from model.moe.routing import Routing, RoutingFeatures

TEXT = "text"
Asked = Mapping[str, int]
"""Question -> how often it is asked."""


@dataclass(frozen=True)
class TaskQuestions:
    """The questions of one task."""

    name: str
    train: Asked
    test: Asked
    reworded: Mapping[str, float] = field(default_factory=dict)
    """Rewording by rule that its anchor knows -> its weight."""
    surely_reworded: Mapping[str, float] = field(default_factory=dict)
    """Those of questions that no other task asks more often."""


def foremost(asked: Sequence[Asked]) -> list[set[str]]:
    """Of each task the questions that no other task asks more often."""
    most: Counter[str] = Counter()
    for questions in asked:
        most |= Counter(questions)
    return [{text for text, count in questions.items() if count == most[text]} for questions in asked]


@dataclass(frozen=True)
class Vectors:
    """One vector per text."""

    place: Mapping[str, int]
    values: Tensor
    """(V, W)"""
    kind: str

    def rows(self, texts: Sequence[str]) -> Tensor:
        """Vectors of the texts. (N, W)"""
        return self.values[[self.place[text] for text in texts]]

    def features(self, texts: Sequence[str]) -> RoutingFeatures:
        """The texts as a batch that can be routed."""
        present = torch.ones(len(texts), dtype=torch.bool)
        return RoutingFeatures({TEXT: self.rows(texts)}, {TEXT: present}, {TEXT: self.kind})

    def anchor(self, task: int, asked: Asked, reworded: Mapping[str, float] | None = None) -> Anchor:
        """Anchor of a task from its questions and the weights of their rewordings, as training makes it."""
        texts = list(Counter(asked).elements())
        anchor = Anchor.from_features(task, {TEXT: self.rows(texts)}, feature_kinds={TEXT: self.kind})
        if not reworded:
            return anchor
        return anchor.with_rewordings(self.rows(list(reworded)), torch.tensor(list(reworded.values())))


def bare_anchor(task: int, rows: Tensor, kind: str = "question") -> Anchor:
    """An anchor to which nothing is far: without held-out distances, which take longest. rows (N, W)"""
    rows = rows.double()
    seed, narrow = scatter_space(rows)
    none = rows.new_zeros(0)
    stats = ModalityStats(len(rows), rows.sum(0), narrow.T @ narrow, kind, seed, held_out=none)
    return Anchor.from_stats(task, None, {TEXT: stats})


@dataclass(frozen=True)
class Answers:
    """What a router made of distinct questions."""

    chosen: Mapping[str, int]
    far: Mapping[str, bool]
    scores: Mapping[str, Sequence[float]]
    new: Mapping[str, bool]
    """Whether it was taken for a question in new words."""

    @staticmethod
    def of(texts: Sequence[str], routing: Routing, new: Tensor) -> Answers:
        """Of B texts, their routing, and which are in new words (B,)."""
        return Answers(
            dict(zip(texts, routing.task_ids, strict=True)),
            dict(zip(texts, routing.far.tolist(), strict=True)),
            dict(zip(texts, routing.scores.tolist(), strict=True)),
            dict(zip(texts, new.tolist(), strict=True)),
        )
