"""Routing: a sample's features choose the expert, compared with the anchors of the tasks so far.

    cosine    s_t = sum_m w_m cos(W_m (x_m - c_m), W_m (mu_tm - c_m)) / sum_m w_m
    lda       s_t = sum_m (log N(x_m; mu_tm, S_m) - log N(x_m; m_m, T_m)) / width_m
    autonomy  s_t = norm of expert t's own low-rank activation (arXiv 2501.13074)
    oracle, random, lookup: for reports

Sums run over the modalities present in the sample and in the anchor. `metric="raw"` with
`modality_weights="equal"` is the published rule (W = I, c = 0, w = 1). Ties go to the lowest task id.
Legend: B samples, E tasks, M modalities, W feature width.
"""

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from model.moe.anchors import Anchor
from model.moe.far import FarCheck
from model.moe.metric import (
    ModalityMetric,
    cosines,
    fit_metric,
    row_dots,
    squared_distances,
)
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
        self.raw = config.metric == "raw" or not self.metrics
        self._columns = {
            name: torch.tensor([i for i, anchor in enumerate(self.anchors) if name in anchor.means])
            for name in self.modalities
        }
        self._raw_means: dict[str, tuple[Tensor, Tensor]] = {}

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
        modality_scores: dict[str, Tensor] = {}
        far = None
        if self.config.router in ("cosine", "lda"):
            scores, modality_scores = self._compare(features)
        elif self.config.router == "autonomy":
            scores = given_scores(norms, len(features), self.candidates)
        elif self.config.router == "oracle":
            scores = label_scores(labels, len(features), self.candidates)
        elif self.config.router == "lookup":
            scores, far = text_scores(texts, self.known_texts, len(features), self.candidates)
        else:
            scores = content_scores(features, self.config.seed, self.candidates)
        known = torch.where(scores.isnan(), -torch.inf, scores)
        chosen = [self.candidates[int(index)] for index in known.argmax(1)]
        if far is None:
            far = self._far(features, known)
        if self.config.abstain:
            chosen = [NO_EXPERT if flag else task for task, flag in zip(chosen, far.tolist(), strict=True)]
        missing = {name: len(features) - int(self._present(features, name).sum()) for name in self.modalities}
        return Routing(chosen, self.candidates, scores, modality_scores, far, missing)

    def _far(self, features: RoutingFeatures, scores: Tensor) -> Tensor:
        """Which samples are far from every task; asked of the best scores (B, E) first. (B,) bool"""
        order = scores.argsort(dim=1, descending=True, stable=True).tolist()
        values = {name: features.values[name].detach().cpu() for name in features.values}
        present = {name: self._present(features, name).tolist() for name in values}
        return torch.tensor(
            [
                self.far_check.is_far(
                    {name: value[row] for name, value in values.items() if present[name][row]},
                    [self.candidates[column] for column in columns],
                )
                for row, columns in enumerate(order)
            ],
            dtype=torch.bool,
        )

    def _compare(self, features: RoutingFeatures) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores (B, E) and scores per modality."""
        shape = (len(features), len(self.candidates))
        above, below = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
        weights = self.weights() if self.config.router == "cosine" else {}
        informed = torch.zeros(shape, dtype=torch.bool)  # (B, E): some modality with a weight was compared
        plain, common = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
        modality_scores = {}
        for name in self.modalities:
            score = self._compare_one(features, name)
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

    def _compare_one(self, features: RoutingFeatures, name: str) -> Tensor:
        """One modality: scores (B, E), NaN where sample or anchor lacks it."""
        rows = self._present(features, name)
        scores = torch.full((len(features), len(self.candidates)), torch.nan, dtype=torch.float64)
        if name not in features.values or not rows.any():
            return scores
        x = features.values[name][rows].detach().cpu().double()
        index = rows.nonzero(), self._columns[name][None]
        if self.config.router == "cosine" and self.raw:
            return scores.index_put(index, cosines(x, *self._raw(name)))
        metric = self.metrics[name]
        y = metric.whiten(x)
        if self.config.router == "lda":
            near = squared_distances(y, metric.means, metric.squares)
            return scores.index_put(index, metric.log_ratio(x, near) / len(metric.center))
        return scores.index_put(index, cosines(y, metric.means, metric.squares))

    def _raw(self, name: str) -> tuple[Tensor, Tensor]:
        """The anchors' means (E, W) and their squared lengths (E,), kept for the next samples."""
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
