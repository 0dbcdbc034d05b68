"""Mixtures of experts without a learned gate: experts, anchors, routing, fusion."""
