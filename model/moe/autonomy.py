"""Experts that weigh themselves by the norm of their own activation, as in Autonomy-of-Experts (arXiv
2501.13074).

    fusion   z = sum_k w_k y_k,  w_k = ||y_k|| / (sum_m ||y_m|| + eps)
    routing  s_k = mean over tokens and layers of ||A_k x||, the low-rank activation of expert k

Legend: B batch, E experts, T tokens, R rank; `...` any further dimensions of a feature map.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.moe.expert_layers import LoraLinear
from model.moe.experts import ExpertBank

EPS = 1e-8


def activation_norms(features: Tensor) -> Tensor:
    """Euclidean norm of each expert's output per sample, over all other dimensions. (B, E, ...) -> (B, E)

    Its gradient is y / ||y||, and 0 where the norm is 0. Half precision is summed in float32.
    """
    wide = torch.float32 if features.dtype in (torch.bfloat16, torch.float16) else None
    return torch.linalg.vector_norm(features.flatten(2), dim=2, dtype=wide)


def fusion_weights(norms: Tensor, eps: float = EPS) -> Tensor:
    """Share of each expert, w_k = n_k / (sum_m n_m + eps). (B, E) -> (B, E)"""
    return norms / (norms.sum(1, keepdim=True) + eps)


def mix(features: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Weighted sum over the experts, z = sum_k w_k y_k, without a stack of all of them in memory.

    features: E times (B, ...); weights: (B, E). Returns (B, ...) in the features' type.
    """
    shape = (-1, *[1] * (features[0].ndim - 1))
    columns = weights.to(features[0].dtype).unbind(1)
    mixed = columns[0].view(shape) * features[0]
    for weight, feature in zip(columns[1:], features[1:], strict=True):
        mixed = mixed + weight.view(shape) * feature
    return mixed


def fuse(features: Tensor | Sequence[Tensor], eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Fuse the experts' outputs by their norms.

    Args:
        features: one output per expert, E >= 1: stacked (B, E, ...), or a sequence of E times (B, ...).
        eps: keeps the weights finite where all experts are silent; the fused output is 0 there.

    Returns:
        Fused output (B, ...) and weights (B, E). They can be differentiated once, by a backward pass.

    Raises:
        ValueError: no expert, outputs without a feature dimension, or of unequal shapes.
    """
    if isinstance(features, Tensor):
        if features.ndim < 3:
            raise ValueError(f"fusion: got shape {tuple(features.shape)}, expected (batch, experts, ...)")
        features = features.unbind(1)
    if not features or features[0].ndim < 2 or any(f.shape != features[0].shape for f in features):
        shapes = [tuple(feature.shape) for feature in features]
        raise ValueError(
            f"fusion: got outputs of shapes {shapes}, expected one (batch, ...) per expert, all alike"
        )
    fused, weights = _Fuse.apply(eps, *features)
    return fused, weights


class _Fuse(torch.autograd.Function):
    """z = sum_k w_k y_k with w_k = n_k / (sum_m n_m + eps), n_k = ||y_k||; maps are read twice each way.

    With g the gradient of z, v_k = <g, y_k> + (that of w_k) and S = sum_m n_m + eps:
    dL/dn_k = (v_k - sum_m w_m v_m) / S,   dL/dy_k = w_k g + dL/dn_k y_k / n_k,   y_k / n_k := 0 if n_k = 0.
    """

    @staticmethod
    def forward(ctx: Any, eps: float, *features: Tensor) -> tuple[Tensor, Tensor]:
        norms = torch.cat([activation_norms(feature[:, None]) for feature in features], 1)
        weights = fusion_weights(norms, eps)
        ctx.save_for_backward(norms, weights, *features)
        ctx.eps = eps
        return mix(features, weights), weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, of_weights: Tensor) -> tuple[Tensor | None, ...]:
        norms, weights, *features = ctx.saved_tensors
        values = of_weights + torch.stack([products(grad, feature) for feature in features], 1).to(norms)
        total = norms.sum(1, keepdim=True) + ctx.eps
        of_norms = (values - (weights * values).sum(1, keepdim=True)) / total
        along = torch.where(norms == 0, 0.0, of_norms / norms).to(grad.dtype)
        shape = (-1, *[1] * (grad.ndim - 1))
        shares = zip(features, weights.to(grad.dtype).unbind(1), along.unbind(1), strict=True)
        back = [(grad * w.view(shape)).addcmul_(y, a.view(shape)) for y, w, a in shares]
        return None, *back


def products(left: Tensor, right: Tensor) -> Tensor:
    """Inner product by sample. (B, ...), (B, ...) -> (B,)

    On a CPU contiguous maps are multiplied channel by channel, without a map of the products in memory. Half
    precision is summed in float32.
    """
    plain = left.ndim > 2 and left.is_contiguous() and right.is_contiguous() and left.device.type == "cpu"
    if not plain or left.dtype != right.dtype or left.dtype.itemsize < 4:
        wide = torch.float32 if left.dtype.itemsize < 4 else left.dtype
        return (left * right).flatten(1).sum(1, dtype=wide)
    with torch.autocast("cpu", enabled=False):  # a backward pass inside of autocast
        return (left.flatten(2).unsqueeze(-2) @ right.flatten(2).unsqueeze(-1)).flatten(1).sum(1)


@dataclass
class ActivationRecord:
    """Running mean of the experts' activation norms."""

    task_ids: tuple[int, ...]
    """Task ids in the order of E."""
    total: Tensor | None = None
    """Sum over the expert layers of the mean norm over tokens. (B, E)"""
    layers: int = 0
    """Number of layer calls in the sum."""

    @property
    def norms(self) -> Tensor:
        """Mean norm per sample and expert, for `Router.route(norms=...)`. (B, E)

        Raises:
            ValueError: nothing was recorded.
        """
        if self.total is None:
            raise ValueError("no activation was recorded; run the model inside `record_activations`")
        return self.total / self.layers


@contextmanager
def record_activations(
    bank: ExpertBank, mask: Tensor | None = None, task_ids: Sequence[int] | None = None
) -> Iterator[ActivationRecord]:
    """Record `||A_k x||` of experts at every expert layer that runs within the block.

    Run the model once inside, with `bank.use([NO_EXPERT] * B)`: no expert then changes what another one sees.

    Args:
        mask: which tokens count, such as those that are no padding. (B, T) bool; None for all.
        task_ids: of which experts, in the order of E; None for all, by sorted id.

    Raises:
        ValueError: the bank has no LoRA experts.
    """
    if bank.config.kind != "lora" or not bank.task_ids:
        raise ValueError(
            f"autonomy needs LoRA experts; the bank holds {bank.task_ids} of kind {bank.config.kind}"
        )
    record = ActivationRecord(tuple(bank.task_ids if task_ids is None else task_ids))

    def observe(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, LoraLinear)
        x = inputs[0].detach()  # (B, T, in)
        norms = torch.stack(
            [
                torch.linalg.vector_norm(x @ layer.factors(k)[0].detach().to(x).T, dim=2)
                for k in record.task_ids
            ],
            2,
        ).double()  # (B, T, E)
        weight = torch.ones_like(norms[..., 0]) if mask is None else mask.to(norms)
        mean = (norms * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
        record.total = mean if record.total is None else record.total + mean
        record.layers += 1

    handles = [layer.register_forward_pre_hook(observe) for layer in bank.layers.values()]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()
