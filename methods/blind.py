"""Our method without video and audio, in training, routing and answering: what the text alone gives."""

from __future__ import annotations

from typing import ClassVar

from methods.anchor_moe import AnchorMoE


class Blind(AnchorMoE):
    """Experts and anchors of questions without media."""

    name: ClassVar[str] = "blind"
    without_media: ClassVar[bool] = True
