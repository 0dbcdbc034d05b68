"""Our experts choose themselves: the one with the largest low-rank activation answers.

    s_t = mean over expert layers and tokens of ||A_t x||          Autonomy-of-Experts, arXiv 2501.13074

As the flag --router autonomy (model/moe/autonomy.py): one pass of the bare backbone over every prompt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from methods.base import Rerouted
from model.moe.routing_records import RouterConfig


class Autonomy(Rerouted):
    """Needs LoRA experts; full-MLP ones have no low-rank activation."""

    name: ClassVar[str] = "anchor_moe_autonomy"

    def router(self, asked: RouterConfig) -> RouterConfig:
        return replace(asked, router="autonomy")
