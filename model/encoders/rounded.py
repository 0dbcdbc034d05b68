"""Copies of frozen parts of the encoder whose weights are rounded once, for products in bf16 on a CPU.

Autocast rounds every frozen weight anew in every call, and the output of a norm anew for each of the linear
layers that read it; both are done once here. Weights lie in memory input by input, (in, out), which saves
transposing them in every call. Quick GELU, `x sigmoid(1.702 x) = silu(1.702 x) / 1.702`, is one
pass in place with the factors in the weights around it. Sums, norms and the residual stream stay in float32,
and the copies run under autocast, which still rounds what is in float32. The originals stay as they were
read: fingerprints, training and files are theirs.
"""

import copy

import torch
from torch import Tensor, nn
from transformers.activations import QuickGELUActivation
from transformers.models.clip.modeling_clip import CLIPMLP

from model.encoders.beats_layers import PositionalConv

_QUICK = 1.702
_NORMS = ("layer_norm1", "layer_norm2")  # of CLIP and SigLIP: only linear layers read what they give


class RoundedNorm(nn.LayerNorm):
    """A norm in float32 whose result is rounded."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).bfloat16()


class FixedConv(PositionalConv):
    """A positional convolution whose weight `fixed` is made once."""

    fixed: Tensor

    def weight(self) -> Tensor:
        return self.fixed


class RoundedCopies:
    """The rounded copy of each part, made when it is first asked for and again after the part has changed."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[list[int], nn.Module]] = {}

    def of(self, name: str, part: nn.Module) -> nn.Module:
        """The copy of a part, which `name` tells from others."""
        versions = [parameter._version for parameter in part.parameters()]
        if name not in self._made or self._made[name][0] != versions:
            self._made[name] = versions, rounded_copy(part)
        return self._made[name][1]


@torch.no_grad()
def rounded_copy(part: nn.Module) -> nn.Module:
    """A copy of a tower, projector or aligner of transformers or of this package, for inference only."""
    copied = copy.deepcopy(part)
    for module in copied.modules():
        if isinstance(module, CLIPMLP) and isinstance(module.activation_fn, QuickGELUActivation):
            module.fc1.weight.mul_(_QUICK)
            module.fc1.bias.mul_(_QUICK)
            module.fc2.weight.div_(_QUICK)
            module.activation_fn = nn.SiLU(inplace=True)
        elif isinstance(module, PositionalConv):
            fixed = module.weight().bfloat16()
            module.__class__ = FixedConv
            module.fixed = fixed
        for name in _NORMS:
            norm = getattr(module, name, None)
            if type(norm) is nn.LayerNorm:
                norm.__class__ = RoundedNorm
    for module in copied.modules():
        if type(module) in (nn.Linear, nn.Conv2d):
            module.bfloat16()
        if type(module) is nn.Linear:
            module.weight = nn.Parameter(module.weight.t().contiguous().t(), requires_grad=False)
    return copied
