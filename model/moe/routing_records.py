"""Records of routing: its configuration, what goes in and what comes out.

Legend: B samples, E tasks, W feature width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from model.moe.expert_layers import NO_EXPERT

__all__ = [
    "MODALITIES",
    "NO_EXPERT",
    "ROUTERS",
    "RouterConfig",
    "Routing",
    "RoutingFeatures",
    "parse_modality_combination",
]

MODALITIES = ("text", "video", "image", "audio")
ROUTERS = ("cosine", "lda", "autonomy", "oracle", "random", "lookup")


@dataclass(frozen=True)
class RouterConfig:
    """How samples are routed."""

    router: str = "cosine"
    """One of ROUTERS."""
    metric: str = "whitened"
    """`whitened`, or `raw` as published; used by `cosine`."""
    modality_weights: str = "informative"
    """`informative`, or `equal` as published; used by `cosine`."""
    modalities: tuple[str, ...] = MODALITIES
    """Which modalities count."""
    shrinkage: float = 0.01
    """Share of the identity in the within-task and total covariance."""
    seed: int = 0
    """Seed of the `random` router."""
    abstain: bool = False
    """Whether samples far from every task get no expert."""
    far_level: float = 0.01
    """Share of ordinary samples that count as far; see far.py."""
    wordings: str = "new"
    """Which questions are ordinary when it is told what is far: `new` ones too, or `known` wordings only."""
    new_level: float | None = None
    """Share of known questions that `cosine` may take for new words, see new_words.py; 0: none; None: what
    suits the anchors."""

    def __post_init__(self) -> None:
        choices = {
            "router": ROUTERS,
            "metric": ("whitened", "raw"),
            "modality_weights": ("informative", "equal"),
            "wordings": ("new", "known"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(allowed)}")
        unknown = set(self.modalities) - set(MODALITIES)
        if unknown or not self.modalities:
            raise ValueError(f"modalities: got {self.modalities}, expected some of {', '.join(MODALITIES)}")
        if not 0 < self.shrinkage <= 1 or not 0 < self.far_level < 1:
            raise ValueError(f"shrinkage {self.shrinkage} and far_level {self.far_level} must lie in (0, 1]")
        if self.new_level is not None and not 0 <= self.new_level < 1:
            raise ValueError(f"new_level: got {self.new_level}, expected 0 to 1")


def parse_modality_combination(text: str) -> tuple[str, ...]:
    """`all`, or modalities joined by `_` such as `text_audio` -> modalities in a fixed order.

    Raises:
        ValueError: an unknown modality or one named twice.
    """
    names = list(MODALITIES) if text == "all" else text.split("_")
    if set(names) - set(MODALITIES) or len(set(names)) < len(names):
        raise ValueError(
            f"modality combination: got {text!r}, expected 'all' or some of {', '.join(MODALITIES)} "
            "joined by '_'"
        )
    return tuple(name for name in MODALITIES if name in names)


@dataclass(frozen=True)
class RoutingFeatures:
    """Features of B samples."""

    values: Mapping[str, Tensor]
    """Modality -> (B, W); what stands in rows without the modality is not read."""
    present: Mapping[str, Tensor]
    """Modality -> (B,) bool."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Modality -> where the feature comes from; compared with the anchors' where given."""

    def __post_init__(self) -> None:
        sizes = {name: (len(v), len(self.present.get(name, ()))) for name, v in self.values.items()}
        if (
            not sizes
            or set(self.values) != set(self.present)
            or len({n for pair in sizes.values() for n in pair}) > 1
        ):
            raise ValueError(
                f"routing features: values and presence do not match, (values, presence) rows are {sizes}"
            )

    def __len__(self) -> int:
        return len(next(iter(self.present.values())))

    @staticmethod
    def from_samples(
        samples: Sequence[Mapping[str, Tensor | None]], kinds: Mapping[str, str] | None = None
    ) -> "RoutingFeatures":
        """Stack samples, each modality -> (W,) or None where it lacks the modality.

        Raises:
            ValueError: no sample, no modality at all, or unequal widths.
        """
        values, present = {}, {}
        for name in MODALITIES:
            rows = [sample.get(name) for sample in samples]
            like = next((row for row in rows if row is not None), None)
            if like is None:
                continue
            widths = {len(row) for row in rows if row is not None}
            if len(widths) > 1:
                raise ValueError(f"modality {name!r}: features of widths {sorted(widths)} in one batch")
            values[name] = torch.stack([torch.zeros_like(like) if row is None else row for row in rows])
            present[name] = torch.tensor([row is not None for row in rows])
        return RoutingFeatures(values, present, kinds or {})

    def rows(self) -> dict[str, Tensor]:
        """Modality -> the rows that have it, for `Anchor.from_features`. (N, W)"""
        return {name: value[self.present[name]] for name, value in self.values.items()}


@dataclass(frozen=True)
class Routing:
    """Where B samples go."""

    task_ids: list[int]
    """Chosen task per sample; NO_EXPERT where the router abstains."""
    candidates: tuple[int, ...]
    """Sorted task ids; the order of E below."""
    compare: Callable[[], tuple[Tensor, dict[str, Tensor]]]
    """Makes `scores` and `modality_scores`, for which a decision among thousands of tasks does not wait."""
    far: Tensor
    """Whether the sample is far from every task (far.py) or shares no modality with any. (B,) bool"""
    missing: dict[str, int]
    """Modality in use -> number of samples without it."""

    @property
    def scores(self) -> Tensor:
        """Score per task, NaN where sample and anchor share no modality. (B, E) float64"""
        return self._compared[0]

    @property
    def modality_scores(self) -> dict[str, Tensor]:
        """Modality -> score per task before weighting, NaN where absent. (B, E) float64"""
        return self._compared[1]

    @cached_property
    def _compared(self) -> tuple[Tensor, dict[str, Tensor]]:
        return self.compare()
