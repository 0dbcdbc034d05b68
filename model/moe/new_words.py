"""Questions in words that no task was learned with: found by their distance, compared in a broader space.

A question farther from every task than all but the share `level` of known questions is in new words. Its
cosines are taken with W from a covariance that is shrunk more, to the median variance, and with the
rewordings that anchors may know: what sets known wordings apart says little about others. Known wordings are
compared as ever.

Legend: B samples, E tasks that have text, W feature width.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from model.moe.anchors import Anchor
from model.moe.far import FarCheck
from model.moe.metric import ModalityMetric, cosines, fit_metric
from model.moe.routing_records import RoutingFeatures

BROAD_SHRINKAGE = 0.85
"""Of the broader space; with the next two chosen on data/paraphrases, half `dev`."""
REWORDED_SHRINKAGE = 0.15
"""The same where anchors know rewordings."""
REWORDED_SHARE = 0.8
"""Share of the rewordings in the statistics there."""
LEVEL, REWORDED_LEVEL = 0.005, 0.02
"""Usual levels, without and with rewordings: with them the broader space loses little of what is known."""


def usual_level(anchors: Sequence[Anchor]) -> float:
    """The level where none is given: a higher one where all anchors know rewordings."""
    texts = [anchor.stats["text"] for anchor in anchors if "text" in anchor.stats]
    return level_for(reworded=all(stats.reworded is not None for stats in texts))


def level_for(*, reworded: bool) -> float:
    """The rule itself, for whoever has no anchors yet: by whether they will know rewordings."""
    return REWORDED_LEVEL if reworded else LEVEL


class NewWords:
    """The second look at text.

    Args:
        anchors: by task id, some with statistics of text.
        level: share of known questions that may be taken for new words.
    """

    def __init__(self, anchors: Sequence[Anchor], level: float) -> None:
        self._stats = {anchor.task_id: anchor.stats["text"] for anchor in anchors if "text" in anchor.stats}
        self._far = FarCheck(anchors, ("text",), level, "known")

    def among(self, features: RoutingFeatures) -> Tensor:
        """Which of B samples are compared by questions in new words; none without text. (B,) bool"""
        found = torch.zeros(len(features), dtype=torch.bool)
        there = features.present.get("text", found).detach().cpu().bool()
        if there.any():
            x = features.values["text"][there]
            found[there] = self.are_new(x, torch.arange(len(self._stats)).expand(len(x), -1))
        return found

    def compared(self, x: Tensor, known: Tensor) -> Tensor:
        """Cosines (B, E) of questions (B, W): `known` ones, those of questions in new words replaced."""
        x = x.detach().cpu().double()
        new = self.are_new(x, known.argsort(dim=1, descending=True, stable=True))
        if new.any():
            known[new] = cosines(self._broad.whiten(x[new]), self._broad.means, self._broad.squares)
        return known

    def are_new(self, x: Tensor, order: Tensor) -> Tensor:
        """Which questions (B, W) are in new words; asked of the tasks' columns in this order (B, E). (B,)"""
        tasks = list(self._stats)
        found = [
            self.far_from(row, [tasks[column] for column in columns])
            for row, columns in zip(x, order.tolist(), strict=True)
        ]
        return torch.tensor(found, dtype=torch.bool)

    def far_from(self, question: Tensor, tasks: Sequence[int]) -> bool:
        """Whether a question (W,) is far from the wordings of all these tasks, the likeliest best first."""
        return self._far.is_far({"text": question.detach().cpu()}, tasks)

    @cached_property
    def _broad(self) -> ModalityMetric:
        if any(part.reworded is None for part in self._stats.values()):
            return fit_metric(self._stats, BROAD_SHRINKAGE, "median")
        blended = {task: part.blended(REWORDED_SHARE) for task, part in self._stats.items()}
        return fit_metric(blended, REWORDED_SHRINKAGE, "median")
