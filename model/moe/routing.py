"""Routing: a sample's features choose the expert, compared with the anchors of the tasks so far.

    cosine    s_t = sum_m w_m cos(W_m (x_m - c_m), W_m (mu_tm - c_m)) / sum_m w_m
    lda       s_t = sum_m (log N(x_m; mu_tm, S_m) - log N(x_m; m_m, T_m)) / width_m
    autonomy  s_t = norm of expert t's own low-rank activation (arXiv 2501.13074)
    oracle, random, lookup: for reports

With `cosine`, questions in words that no task was learned with are compared otherwise: see new_words.py.

Sums run over the modalities present in the sample and in the anchor. `metric="raw"` with
`modality_weights="equal"` is the published rule (W = I, c = 0, w = 1). Ties go to the lowest task id.
Legend: B samples, E tasks, M modalities, W feature width.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from model.moe.anchors import Anchor
from model.moe.far import FarCheck
from model.moe.metric import ModalityMetric, cosines, fit_metric, row_dots, squared_distances
from model.moe.new_words import NewWords, usual_level
from model.moe.reference_routers import content_scores, given_scores, label_scores, text_scores
from model.moe.routing_records import (
    MODALITIES,
    NO_EXPERT,
    ROUTERS,
    RouterConfig,
    Routing,
    RoutingFeatures,
    parse_modality_combination,
)
from model.moe.shortlist import LARGE, Shortlist

__all__ = [
    "MODALITIES",
    "ROUTERS",
    "Router",
    "RouterConfig",
    "Routing",
    "RoutingFeatures",
    "parse_modality_combination",
]

logger = logging.getLogger(__name__)
_UNDECIDED = 1e-9
"""Scores of a shortlist that are nearer to each other are left to the scores of all tasks."""


class Router:
    """Routes samples to the tasks that have anchors.

    Args:
        anchors: one per task, any order.
        known_texts: for `lookup`: question text -> task id -> how often; built from training questions.

    Raises:
        ValueError: no anchors, a task twice, anchors of unequal bases, kinds or widths, none of the
            modalities in any anchor, or statistics missing where the configuration needs them.
    """

    def __init__(
        self,
        anchors: Sequence[Anchor],
        config: RouterConfig,
        known_texts: Mapping[str, Mapping[int, int]] | None = None,
    ):
        self.config = config
        self.anchors = sorted(anchors, key=lambda anchor: anchor.task_id)
        self.candidates = tuple(anchor.task_id for anchor in self.anchors)
        self.known_texts = known_texts
        _check_anchors(self.anchors)
        self.modalities = tuple(m for m in config.modalities if any(m in a.means for a in self.anchors))
        if not self.modalities:
            raise ValueError(
                f"no anchor has any of the modalities {', '.join(config.modalities)}; choose others"
            )
        for anchor in self.anchors:
            lacking = [name for name in self.modalities if name not in anchor.means]
            if lacking:
                logger.warning("anchor of task %d has no %s", anchor.task_id, ", ".join(lacking))
        self.metrics = self._fit()
        self.far_check = FarCheck(self.anchors, self.modalities, config.far_level, config.wordings)
        _check_held_out(self.anchors, self.modalities, config.abstain)
        self.raw = config.router != "lda" and (config.metric == "raw" or not self.metrics)
        self.new_words: NewWords | None = None
        level = usual_level(self.anchors) if config.new_level is None else config.new_level
        if config.router == "cosine" and not self.raw and "text" in self.metrics and level > 0:
            self.new_words = NewWords(self.anchors, level)
        self._columns = {
            name: torch.tensor([i for i, anchor in enumerate(self.anchors) if name in anchor.means])
            for name in self.modalities
        }
        self._raw_means: dict[str, tuple[Tensor, Tensor]] = {}
        everywhere = all(len(columns) == len(self.anchors) for columns in self._columns.values())
        self._short = config.router == "cosine" and everywhere and len(self.anchors) >= LARGE
        self._shortlist: Shortlist | None = None  # made when first asked for

    def _fit(self) -> dict[str, ModalityMetric]:
        """Modality -> metric; empty if any anchor has no statistics."""
        bare = [anchor.task_id for anchor in self.anchors if not anchor.complete]
        if not bare:
            metrics = {}
            for name in self.modalities:
                stats = {a.task_id: a.stats[name] for a in self.anchors if name in a.stats}
                try:
                    metrics[name] = fit_metric(stats, self.config.shrinkage)
                except ValueError as error:
                    raise ValueError(f"modality {name!r}: {error}") from error
            return metrics
        if self.config.router == "lda" or self.config.abstain:
            raise ValueError(
                f"anchors of tasks {bare} have no statistics; lda and abstaining need them: make them anew"
            )
        if self.config.router == "cosine" and (self.config.metric, self.config.modality_weights) != (
            "raw",
            "equal",
        ):
            logger.warning("anchors of tasks %s have no statistics: raw metric with equal weights", bare)
        return {}

    def weights(self) -> dict[str, float]:
        """Modality -> weight in the cosine score; equal if no modality tells tasks apart."""
        if self.config.modality_weights == "informative" and any(m.weight > 0 for m in self.metrics.values()):
            return {name: metric.weight for name, metric in self.metrics.items()}
        return dict.fromkeys(self.modalities, 1.0)

    def route(
        self,
        features: RoutingFeatures,
        *,
        labels: Sequence[int] | None = None,
        texts: Sequence[str] | None = None,
        norms: Tensor | None = None,
    ) -> Routing:
        """Route B samples.

        Args:
            labels: true task per sample, for `oracle`.
            texts: question text per sample, for `lookup`.
            norms: activation norm per sample and task, columns by sorted task id, for `autonomy`. (B, E)

        Raises:
            ValueError: what the router needs is not given, or widths or kinds differ from the anchors'.
        """
        self._check_features(features)

        @cache
        def compare() -> tuple[Tensor, dict[str, Tensor]]:
            return self._scores(features, labels, norms)

        far = None
        if self.config.router == "lookup":
            found, far = text_scores(texts, self.known_texts, len(features), self.candidates)
            compare = cache(lambda: (found, {}))
        columns = self._short_way(features) if self._short else None
        if columns is None:
            columns = _known(compare()[0]).argmax(1).tolist()
        if far is None:
            far = self._far(features, columns, lambda: _known(compare()[0]))
        chosen = [self.candidates[column] for column in columns]
        if self.config.abstain:
            chosen = [NO_EXPERT if flag else task for task, flag in zip(chosen, far.tolist(), strict=True)]
        missing = {name: len(features) - int(self._present(features, name).sum()) for name in self.modalities}
        return Routing(chosen, self.candidates, compare, far, missing)

    def _scores(
        self, features: RoutingFeatures, labels: Sequence[int] | None, norms: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores (B, E) and scores per modality of all routers but `lookup`."""
        if self.config.router in ("cosine", "lda"):
            return self._compare(features)
        if self.config.router == "autonomy":
            return given_scores(norms, len(features), self.candidates), {}
        if self.config.router == "oracle":
            return label_scores(labels, len(features), self.candidates), {}
        return content_scores(features, self.config.seed, self.candidates), {}

    def _far(self, features: RoutingFeatures, columns: Sequence[int], known: Callable[[], Tensor]) -> Tensor:
        """Which samples are far from every task; asked of the best `columns` first, then in the order of the
        `known` scores (B, E). (B,) bool"""
        values = {name: features.values[name].detach().cpu() for name in features.values}
        present = {name: self._present(features, name).tolist() for name in values}
        found = []
        for row, best in enumerate(columns):
            sample = {name: value[row] for name, value in values.items() if present[name][row]}
            is_far = self.far_check.is_far(sample, [self.candidates[best]])
            if is_far and len(self.candidates) > 1:
                order = known()[row].argsort(descending=True, stable=True).tolist()
                is_far = self.far_check.is_far(sample, [self.candidates[column] for column in order])
            found.append(is_far)
        return torch.tensor(found, dtype=torch.bool)

    def _short_way(self, features: RoutingFeatures) -> list[int] | None:
        """The best column of every row, from exact scores of the anchors that may have it; None where these
        are many, or a row is undecided or shares no modality with the anchors."""
        if self._shortlist is None:
            self._shortlist = Shortlist({name: self._units(name) for name in self.modalities})
        near, weights = [], self.weights()
        rows = {name: self._present(features, name).tolist() for name in self.modalities}
        for row in range(len(features)):
            names = [name for name in self.modalities if rows[name][row]]
            if not names:
                return None
            sample = {name: self._in_space(name, features.values[name][row][None])[0] for name in names}
            informed = any(weights[name] > 0 for name in names)
            near.append(self._shortlist.near(sample, weights if informed else dict.fromkeys(names, 1.0)))
        columns = torch.cat(near).unique()
        if len(columns) > len(self.candidates) // 4:
            return None
        best = self._compare(features, columns)[0].topk(min(2, len(columns)), dim=1)
        if len(columns) > 1 and bool((best.values[:, 0] - best.values[:, 1] < _UNDECIDED).any()):
            return None
        chosen: list[int] = columns[best.indices[:, 0]].tolist()
        for row, column in enumerate(chosen):
            if self.new_words is None or not rows["text"][row]:
                continue
            if self.new_words.far_from(features.values["text"][row], [self.candidates[column]]):
                return None
        return chosen

    def _units(self, name: str) -> Tensor:
        """The anchors' vectors that cosines are taken with, at length 1 or 0. (E, K)"""
        means, squares = self._means(name)
        return torch.where(squares[:, None] > 0, means / squares.sqrt()[:, None], 0.0)

    def _in_space(self, name: str, x: Tensor) -> Tensor:
        """Features (B, W) in the space that cosines are taken in. (B, K) float64"""
        x = x.detach().cpu().double()
        return x if self.raw else self.metrics[name].whiten(x)

    def _compare(
        self, features: RoutingFeatures, columns: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores (B, E) and scores per modality; of some `columns` only, where all anchors have all
        modalities."""
        shape = (len(features), len(self.candidates) if columns is None else len(columns))
        above, below = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
        weights = self.weights() if self.config.router == "cosine" else {}
        informed = torch.zeros(shape, dtype=torch.bool)  # (B, E): some modality with a weight was compared
        plain, common = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
        modality_scores = {}
        for name in self.modalities:
            score = self._compare_one(features, name, columns)
            modality_scores[name] = score
            there = ~score.isnan()
            score = torch.where(there, score, 0.0)
            weight = weights.get(name, 1.0)
            above, below = above + weight * score, below + weight * there
            plain, common = plain + score, common + there
            informed |= there & (weight > 0)
        if self.config.router == "lda":
            scores = torch.where(common > 0, above, torch.nan)
        else:  # where only modalities without weight are shared, they count equally
            scores = torch.where(informed, above / below.clamp_min(1e-300), plain / common)
        return scores, modality_scores

    def _compare_one(self, features: RoutingFeatures, name: str, columns: Tensor | None) -> Tensor:
        """One modality: scores (B, E), NaN where sample or anchor lacks it."""
        rows = self._present(features, name)
        tasks = len(self.candidates) if columns is None else len(columns)
        scores = torch.full((len(features), tasks), torch.nan, dtype=torch.float64)
        if name not in features.values or not rows.any():
            return scores
        x = features.values[name][rows]
        index = rows.nonzero(), self._columns[name][None] if columns is None else torch.arange(tasks)[None]
        y, (means, squares) = self._in_space(name, x), self._means(name)
        if self.config.router == "lda":
            metric, near = self.metrics[name], squared_distances(y, means, squares)
            found = metric.log_ratio(x.detach().cpu().double(), near) / len(metric.center)
        elif columns is None:
            found = cosines(y, means, squares)
            if name == "text" and self.new_words is not None:
                found = self.new_words.compared(x, found)
        else:  # no question in new words: see `_short_way`
            found = cosines(y, means[columns], squares[columns])
        return scores.index_put(index, found)

    def _means(self, name: str) -> tuple[Tensor, Tensor]:
        """The anchors' means (E, K) in the space of the comparison and their squared lengths (E,), kept for
        the next samples."""
        if not self.raw:
            return self.metrics[name].means, self.metrics[name].squares
        if name not in self._raw_means:
            means = torch.stack([self.anchors[i].means[name] for i in self._columns[name].tolist()])
            self._raw_means[name] = means, row_dots(means)
        return self._raw_means[name]

    def _present(self, features: RoutingFeatures, name: str) -> Tensor:
        if name not in features.present:
            return torch.zeros(len(features), dtype=torch.bool)
        return features.present[name].detach().cpu().bool()

    def _check_features(self, features: RoutingFeatures) -> None:
        for name in self.modalities:
            if name not in features.values:
                continue
            anchor = next(anchor for anchor in self.anchors if name in anchor.means)
            got, expected = features.values[name].shape[1], len(anchor.means[name])
            if got != expected:
                raise ValueError(
                    f"modality {name!r}: features of width {got}, anchors of width {expected}; "
                    "check the backbone"
                )
            kind = anchor.stats[name].feature_kind if name in anchor.stats else None
            if kind is not None and features.kinds.get(name, kind) != kind:
                raise ValueError(
                    f"modality {name!r}: features of kind {features.kinds[name]!r}, anchors of kind "
                    f"{kind!r}; route with the kind that the anchors were made with"
                )


def _known(scores: Tensor) -> Tensor:
    """Scores with the lowest number in place of NaN."""
    return torch.where(scores.isnan(), -torch.inf, scores)


def _check_held_out(anchors: Sequence[Anchor], modalities: Sequence[str], abstain: bool) -> None:
    """Say, or with `abstain` refuse, that some tasks cannot tell what is far from them."""
    unknown = [
        anchor.task_id
        for anchor in anchors
        if any(name in anchor.stats and anchor.stats[name].held_out is None for name in modalities)
    ]
    if not unknown:
        return
    text = f"anchors of tasks {unknown} have no held-out distances (an earlier version made them)"
    if abstain:
        raise ValueError(f"{text}; abstaining needs them: make the anchors anew (--overwrite)")
    logger.warning("%s: no sample counts as far from these tasks", text)


def _check_anchors(anchors: Sequence[Anchor]) -> None:
    ids = [anchor.task_id for anchor in anchors]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"anchors of tasks {ids}: expected one for each task, at least one")
    bases = {anchor.base_identity for anchor in anchors if anchor.base_identity is not None}
    if len(bases) > 1:
        raise ValueError(
            f"anchors were made with {len(bases)} different bases; make them all with one backbone"
        )
    for name in sorted({name for anchor in anchors for name in anchor.means}):
        widths = {a.task_id: len(a.means[name]) for a in anchors if name in a.means}
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"modality {name!r}: widths differ between tasks {widths}; make the anchors with one backbone"
            )
