"""Frozen towers in 16 bits on a CPU: weights rounded and laid out once, activations joined to the products.

Autocast rounds each weight anew in every call, adds bias and activation in passes of their own, and rounds
the input of queries, keys and values one by one: together half as long as the products take. Here

    y = f(x W^T + b),  x, W, b, y in bfloat16, sums and f in float32,

is one call of oneDNN for each linear layer. The residual stream and the norms stay in float32.
"""

import platform

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import GELUActivation, GELUTanh, QuickGELUActivation

from model.encoders.beats import PositionalConv
from model.encoders.beats_layers import GatedAttention

_QUICK = 1.702  # quick GELU: x sigmoid(1.702 x) = silu(1.702 x) / 1.702
_ROWS = 4096  # tokens of a typical call, for which weights are laid out
_MLPS = (("fc1", "activation_fn", "fc2"), ("fc1", "activation", "fc2"), ("dense", "intermediate_act_fn", ""))
"""Names of an MLP's first map, activation and second map: CLIP and SigLIP, BEATs, Q-Former (its second map is
in another module)."""


def packable() -> bool:
    """Whether this processor and build have the products."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear(nn.Module):
    """A linear layer in the layout of oneDNN, with an activation: `f(x W^T + b)`, (..., in) -> (..., out).

    Args:
        scale: what weights are multiplied with before rounding, and `bias_scale` the bias.
        activation: of oneDNN ("none", "gelu", "swish"), with its `algorithm`.
    """

    def __init__(
        self,
        linear: nn.Linear,
        activation: str = "none",
        algorithm: str = "",
        scale: float = 1.0,
        bias_scale: float = 1.0,
    ) -> None:
        super().__init__()
        weight = (linear.weight.detach() * scale).bfloat16()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        self.bias = None if linear.bias is None else (linear.bias.detach() * bias_scale).bfloat16()
        self.activation, self.algorithm = activation, algorithm

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.bfloat16(), self.packed, self.bias, self.activation, [], self.algorithm
        )
        return y


class ShortNorm(nn.Module):
    """A norm in float32 that gives its result in 16 bits, rounded once for all layers that read it."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y.bfloat16()


def pack(model: nn.Module) -> None:
    """Replace the linear layers of a frozen tower, projector or aligner, and what stands around them, in
    place."""
    for module in list(model.modules()):
        for first, between, second in _MLPS:
            if isinstance(getattr(module, first, None), nn.Linear) and hasattr(module, between):
                _pack_mlp(module, first, between, second)
        if isinstance(module, nn.Sequential):
            _pack_chain(module)
        if isinstance(module, PositionalConv):
            module.fixed = module.weight().detach().bfloat16()
        if isinstance(module, GatedAttention) and module.relative_attention_bias is not None:
            module.relative_attention_bias.bfloat16()
        for name in ("layer_norm1", "layer_norm2"):  # of CLIP and SigLIP, in front of linear layers only
            if isinstance(norm := getattr(module, name, None), nn.LayerNorm):
                setattr(module, name, ShortNorm(norm))
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, PackedLinear(child))


def _joined(activation: object) -> tuple[str, str, float] | None:
    """What oneDNN calls an activation, its algorithm, and the scale that its input has to have."""
    if isinstance(activation, QuickGELUActivation):
        return "swish", "", _QUICK
    if isinstance(activation, GELUTanh):
        return "gelu", "tanh", 1.0
    if activation is F.gelu or isinstance(activation, GELUActivation):
        return "gelu", "none", 1.0
    if isinstance(activation, nn.GELU):
        return "gelu", activation.approximate, 1.0
    return None


def _pack_mlp(module: nn.Module, first: str, between: str, second: str) -> None:
    found = _joined(getattr(module, between))
    after = getattr(module, second, None)
    if found is None or (found[2] != 1.0 and not isinstance(after, nn.Linear)):
        return
    kind, algorithm, scale = found
    setattr(module, first, PackedLinear(getattr(module, first), kind, algorithm, scale, scale))
    if after is not None:
        setattr(module, second, PackedLinear(after, scale=1 / scale))
    setattr(module, between, nn.Identity())


def _pack_chain(chain: nn.Sequential) -> None:
    """Linear layers followed by an activation."""
    for place in range(len(chain) - 1):
        linear, found = chain[place], _joined(chain[place + 1])
        if isinstance(linear, nn.Linear) and found is not None and found[2] == 1.0:
            chain[place], chain[place + 1] = PackedLinear(linear, found[0], found[1]), nn.Identity()
