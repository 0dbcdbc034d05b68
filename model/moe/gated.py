"""A mixture of low-rank branches under a learned gate: what this project does without, for comparison.

One LoRA of rank R is cut into E branches of rank R / E, which a gate on the layer's input weighs for every
token (MoELoRA as in CoIN, arXiv 2403.08350; CL-MoE, arXiv 2503.00413):

    y = W x + alpha / (R / E) sum_e g_e(x) B_e A_e x,    g(x) = softmax(G x)

All branches are computed (dense mixing). A and B are those of a LoRA, row r of A and column r of B belonging
to branch `r mod E`, so that an A whose rows fall in importance is dealt out evenly. A fresh gate is zero: all
branches weigh 1 / E, and the expert starts as the plain LoRA of rank R with the same A and B.

Legend: B batch, T tokens, R rank, E branches; `in`, `out` widths of the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.moe.expert_files import ExpertHeader
from model.moe.expert_layers import Active, ExpertLinear, Selection
from model.moe.expert_sites import ExpertConfig, GatedConfig
from model.moe.experts import ExpertBank

_B, _GATE = ".lora_B.weight", ".lora_gate.weight"


class GatedLinear(ExpertLinear):
    """`W x + scale sum_e g_e(x) B_e A_e x`; A (R, in), B (out, R) and G (E, in) are each row's own.

    While an expert learns, the x of A may be thinned by dropout; those of W and of the gate never are.
    """

    def __init__(self, base: nn.Linear, site: str, active: Active, scale: float):
        super().__init__(base, site, active)
        self.scale = scale

    def gate(self, x: Tensor, task_id: int) -> Tensor:
        """Weights of the branches, which sum to 1, in float32 at least. (B, T, in) -> (B, T, E)"""
        scores = F.linear(x, self._part(x, task_id, "_G"))
        return F.softmax(scores, -1, dtype=torch.promote_types(scores.dtype, torch.float32))

    def expert(self, x: Tensor, task_id: int) -> Tensor:
        return self.base(x) + self._update(x, task_id)

    def mixed(self, x: Tensor, selection: Selection) -> Tensor:
        y = self.base(x)
        for task_id in selection.distinct:
            rows = selection.rows(task_id, x.device)
            y = y.index_add(0, rows, self._update(x[rows], task_id))
        return y

    def _update(self, x: Tensor, task_id: int) -> Tensor:
        """What the branches add. (B, T, in) -> (B, T, out)"""
        weights = self.gate(x, task_id).to(x.dtype)
        thinned = F.dropout(x, self.active.dropout) if self.active.dropout else x
        low = F.linear(thinned, self._part(x, task_id, "_A"))  # (B, T, R)
        branches = low.unflatten(-1, (-1, weights.shape[-1])) * weights.unsqueeze(-2)  # (B, T, R / E, E)
        return self.scale * F.linear(branches.flatten(-2), self._part(x, task_id, "_B"))

    def _part(self, x: Tensor, task_id: int, suffix: str) -> Tensor:
        return self.active.experts[task_id].get(self.site + suffix).to(x)


class GatedBank(ExpertBank):
    """A bank of gated experts; files, selection and training are those of `ExpertBank`."""

    config: GatedConfig

    def _wrap(self, base: nn.Linear, key: str) -> ExpertLinear:
        site = key.removeprefix("model.").replace(".", "_")
        return GatedLinear(base, site, self.active, self.config.scale)

    def fresh_state(self, generator: torch.Generator | None) -> dict[str, Tensor]:
        """A and B of a fresh LoRA and a gate of zeros, in file order. Raises ValueError without generator."""
        low_rank = super().fresh_state(generator)
        return {key: low_rank.get(key, torch.zeros(shape)) for key, shape in self.expected_shapes().items()}

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape of every tensor of an expert, in file order: A, B and gate of layer after layer."""
        shapes: dict[str, tuple[int, ...]] = {}
        for key, shape in super().expected_shapes().items():
            shapes[key] = shape
            if key.endswith(_B):
                layer = key.removesuffix(_B)
                shapes[layer + _GATE] = (self.config.branches, self.layers[layer].in_features)
        return shapes

    def _header(self, task_id: int) -> ExpertHeader:
        return replace(super()._header(task_id), branches=self.config.branches)


def open_bank(llm: nn.Module, config: ExpertConfig, base_identity: str | None = None) -> ExpertBank:
    """An empty bank for experts of this configuration, gated ones too. Raises ValueError as `ExpertBank`."""
    return (GatedBank if isinstance(config, GatedConfig) else ExpertBank)(llm, config, base_identity)


@contextmanager
def exchanged(llm: nn.Module, bank: ExpertBank, config: ExpertConfig) -> Iterator[ExpertBank]:
    """Within the block `llm` carries an empty bank of this configuration in place of `bank`.

    Raises:
        ValueError: the model lacks a layer that the configuration names.
    """
    layers = {
        name: module
        for name, module in llm.named_modules()
        if isinstance(module, ExpertLinear) and module.active is bank.active
    }
    bank.detach()
    try:
        other = open_bank(llm, config, bank.base_identity)
        try:
            yield other
        finally:
            other.detach()
    finally:
        for name, layer in layers.items():
            parent, _, child = name.rpartition(".")
            setattr(llm.get_submodule(parent), child, layer)
