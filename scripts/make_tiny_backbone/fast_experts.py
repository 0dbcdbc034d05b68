"""Low-rank adapters of the language stage, of the form of the experts that the frozen model will carry later:
`y = W x + 2 B A x` on gate, up and down projections of every layer, rank 16, where answers are told.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.make_tiny_backbone.training import MasterAdam

RANK, SCALE = 16, 2.0
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


class Told:
    """Where in the running batch answers are told."""

    places: Tensor  # (B, N, 1) 1 there, 0 elsewhere


class FastLinear(nn.Module):
    """A linear map and its adapter."""

    def __init__(self, base: nn.Linear, told: Told) -> None:
        super().__init__()
        self.base, self.told = base, told
        self.a = nn.Parameter(base.weight.new_zeros(RANK, base.in_features))
        self.b = nn.Parameter(base.weight.new_zeros(base.out_features, RANK))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + F.linear(F.linear(x, self.a) * (SCALE * self.told.places), self.b)


class FastExperts:
    """Puts adapters into a LLaMA, draws them anew for each episode, takes them out at the end."""

    def __init__(self, llm: nn.Module) -> None:
        self.llm = llm
        self.told = Told()
        self.layers: list[FastLinear] = []
        for layer in llm.model.layers:
            for name in PROJECTIONS:
                fast = FastLinear(getattr(layer.mlp, name), self.told)
                setattr(layer.mlp, name, fast)
                self.layers.append(fast)
        self.parameters = [p for layer in self.layers for p in (layer.a, layer.b)]

    def reset(self, rate: float) -> None:
        """Fresh adapters (A Kaiming, B zero) and a fresh optimiser."""
        for layer in self.layers:
            nn.init.kaiming_uniform_(layer.a, a=5**0.5)
            nn.init.zeros_(layer.b)
        self.adam = MasterAdam(self.parameters, rate, 0.0)

    def tell(self, told_BN: Tensor, prefix: int) -> None:
        """Act where `told_BN` is True, N places after `prefix` others."""
        self.told.places = F.pad(told_BN, (prefix, 0)).unsqueeze(-1).to(torch.bfloat16)

    def step(self) -> None:
        """One update from the gradients at hand."""
        self.adam.step()

    def remove(self) -> None:
        """Restore the plain model."""
        layers = iter(self.layers)
        for layer in self.llm.model.layers:
            for name in PROJECTIONS:
                setattr(layer.mlp, name, next(layers).base)
