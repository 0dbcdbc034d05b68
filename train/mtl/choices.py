"""Weightings by name, with their settings."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from train.mtl.gradient_weightings import IMTL, MGDA, Aligned_MTL, CAGrad, Nash_MTL, PCGrad, UPGrad
from train.mtl.weightings import DWA, EW, FAMO, RLW, UW, GradNorm, Weighting

WEIGHTINGS: dict[str, type[Weighting]] = {
    cls.__name__: cls
    for cls in (EW, UW, DWA, RLW, GradNorm, FAMO, PCGrad, MGDA, CAGrad, Nash_MTL, IMTL, Aligned_MTL, UPGrad)
}
SETTINGS: dict[str, tuple[str, ...]] = {
    "DWA": ("T",),
    "GradNorm": ("alpha",),
    "FAMO": ("FAMO_w_lr", "FAMO_w_gamma"),
    "MGDA": ("mgda_gn",),
    "CAGrad": ("calpha", "rescale"),
    "Nash_MTL": ("update_weights_every", "optim_niter", "max_norm"),
}


@dataclass(frozen=True)
class WeightingConfig:
    """A weighting and the settings of all that have some; names as in LibMTL."""

    name: str = "EW"
    T: float = 2.0  # DWA: temperature
    alpha: float = 1.5  # GradNorm: strength of the pull to equal rates
    FAMO_w_lr: float = 0.025  # FAMO: learning rate of the weights
    FAMO_w_gamma: float = 1e-3  # FAMO: weight decay of the weights
    mgda_gn: str = "none"  # MGDA: none, l2, loss, loss+
    calpha: float = 0.5  # CAGrad: radius
    rescale: int = 1  # CAGrad: 0, 1, 2
    update_weights_every: int = 1  # Nash-MTL: steps between solutions
    optim_niter: int = 20  # Nash-MTL: iterations of a solution
    max_norm: float = 1.0  # Nash-MTL: clipping of the step, 0 for none

    def __post_init__(self) -> None:
        if self.name not in WEIGHTINGS:
            raise ValueError(f"weighting {self.name!r}; expected one of {', '.join(WEIGHTINGS)}")
        for name in ("T", "update_weights_every", "optim_niter"):
            if not 0 < getattr(self, name) < inf:
                raise ValueError(f"{name} {getattr(self, name)}; expected a positive number")


def make_weighting(config: WeightingConfig, tasks: int) -> Weighting:
    """The weighting for this many tasks. Raises ValueError for a setting that it does not know."""
    settings: dict[str, Any] = {name: getattr(config, name) for name in SETTINGS.get(config.name, ())}
    return WEIGHTINGS[config.name](tasks, **settings)
