"""Our experts chosen by linear discriminants: the likeliest task of Gaussians with one covariance.

    s_t = sum over m of (log N(x_m; mu_tm, S_m) - log N(x_m; m_m, T_m)) / width_m     (model/moe/routing.py)

As the flag --router lda.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from methods.base import Rerouted
from model.moe.routing_records import RouterConfig


class LDA(Rerouted):
    """Needs the anchors' second-order statistics, which published anchors do not have."""

    name: ClassVar[str] = "anchor_moe_lda"

    def router(self, asked: RouterConfig) -> RouterConfig:
        return replace(asked, router="lda")
