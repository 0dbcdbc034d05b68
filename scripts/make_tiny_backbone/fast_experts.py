"""Low-rank adapters of the language stage, of the form of the experts that the frozen model will carry later:
`y = W x + 2 B A x` on gate, up and down projections of every even layer, rank 16.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from scripts.make_tiny_backbone.training import MasterAdam

RANK, SCALE = 16, 2.0
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


class FastLinear(nn.Module):
    """A linear map and its adapter."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Parameter(base.weight.new_zeros(RANK, base.in_features))
        self.b = nn.Parameter(base.weight.new_zeros(base.out_features, RANK))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + SCALE * F.linear(F.linear(x, self.a), self.b)


class FastExperts:
    """Puts adapters into a LLaMA, draws them anew for each episode, takes them out at the end."""

    def __init__(self, llm: nn.Module) -> None:
        self.llm = llm
        self.layers: list[FastLinear] = []
        for layer in llm.model.layers[::2]:
            for name in PROJECTIONS:
                fast = FastLinear(getattr(layer.mlp, name))
                setattr(layer.mlp, name, fast)
                self.layers.append(fast)
        self.parameters = [p for layer in self.layers for p in (layer.a, layer.b)]

    def reset(self, rate: float) -> None:
        """Fresh adapters (A Kaiming, B zero) and a fresh optimiser."""
        for layer in self.layers:
            nn.init.kaiming_uniform_(layer.a, a=5**0.5)
            nn.init.zeros_(layer.b)
        self.adam = MasterAdam(self.parameters, rate, 0.0)

    def step(self) -> None:
        """One update from the gradients at hand."""
        self.adam.step()

    def remove(self) -> None:
        """Restore the plain model."""
        layers = iter(self.layers)
        for layer in self.llm.model.layers[::2]:
            for name in PROJECTIONS:
                setattr(layer.mlp, name, next(layers).base)
