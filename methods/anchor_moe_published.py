"""Our experts chosen by the published rule: cosine with the anchors' means, all modalities alike.

    s_t = mean over m of cos(x_m, mu_tm)     m: modalities that sample and anchor have (model/moe/routing.py)

As the flags --router cosine --metric raw --modality_weights equal.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from methods.base import Rerouted
from model.moe.routing_records import RouterConfig


class Published(Rerouted):
    """Neither whitening nor weights, and no other way with new words."""

    name: ClassVar[str] = "anchor_moe_published"

    def router(self, asked: RouterConfig) -> RouterConfig:
        return replace(asked, router="cosine", metric="raw", modality_weights="equal")
