"""A mixture of LoRA experts under a learned gate: one expert that goes on learning, gate and all.

C. Chen et al., CoIN, arXiv 2403.08350 (MoELoRA); T. Huai et al., CL-MoE, arXiv 2503.00413. The LoRA of rank R
that the other methods have is cut into branches of rank R / E, which a softmax gate on the layer's input
weighs for every token (model/moe/gated.py). Nothing tells the gate the task; it forgets with the rest. The
gates come on top of the budget: E numbers per input of a layer, beside R (1 + out / in) of the LoRA.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from evaluation.expert_loading import GATED
from methods.base import Continued
from model.moe.expert_sites import ExpertConfig, GatedConfig
from train.cells import Cell


@dataclass(frozen=True)
class MoeLora(Continued):
    """Branches of the configured LoRA under a gate; all of it is trained task after task."""

    name: ClassVar[str] = "moe_lora"
    make: ClassVar[str] = GATED

    moe_branches: int = field(default=4, metadata={"help": "branches that share the rank in moe_lora (4)"})

    def plain(self, cell: Cell) -> bool:
        """No plain expert is trained like it."""
        return False

    def expert(self, config: ExpertConfig) -> ExpertConfig:
        if config.kind != "lora":
            raise ValueError(
                f"moe_lora: cuts a LoRA into branches, but --expert_kind is {config.kind!r}; use lora, or "
                "leave the method out of --methods"
            )
        return GatedConfig(**{**vars(config), "kind": "gated"}, branches=self.moe_branches)
