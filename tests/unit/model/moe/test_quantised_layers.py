"""Experts on linear layers whose weights are packed integers: the layer computes, the expert adds."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.moe.experts import NO_EXPERT, ExpertBank, ExpertConfig

IN, OUT = 6, 10


class Packed(nn.Linear):
    """A linear layer as bitsandbytes makes them: an nn.Linear whose weight only itself can read."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False)
        scale = plain.weight.detach().abs().max() / 127
        rounded = (plain.weight.detach() / scale).round().to(torch.int8)
        self.weight = nn.Parameter(rounded.reshape(-1, 1), requires_grad=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.view(self.out_features, self.in_features) * self.scale)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(IN, dtype=torch.float32)
        layer = nn.Module()
        layer.mlp = nn.Module()
        layer.mlp.up_proj = Packed(nn.Linear(IN, OUT))
        self.layers = nn.ModuleList([layer])

    @property
    def site(self) -> nn.Module:
        return self.get_submodule("layers.0.mlp.up_proj")


CONFIG = ExpertConfig(rank=2, alpha=4.0, projections=("up_proj",))
X = torch.linspace(-1, 1, 2 * 3 * IN).view(2, 3, IN)


def test_lora_adds_to_what_the_layer_computes() -> None:
    model = Model()
    bare = model.site(X)
    bank = ExpertBank(model, CONFIG)
    bank.add(0, generator=torch.Generator().manual_seed(0))
    a, b = (parameter.data for parameter in bank.parameters_of(0).values())
    b.normal_()
    with bank.use([0, NO_EXPERT]):
        mixed = model.site(X)
    torch.testing.assert_close(mixed[1], bare[1], rtol=0, atol=0)
    torch.testing.assert_close(mixed[0], bare[0] + CONFIG.scale * X[0] @ a.T @ b.T)
    learned = bank.train_only(0)
    with bank.use([0, 0]):
        model.site(X).sum().backward()
    assert all(parameter.grad is not None for parameter in learned)


def test_detaching_gives_the_layer_back() -> None:
    model = Model()
    layer, bare = model.site, model.site(X)
    ExpertBank(model, CONFIG).detach()
    assert model.site is layer
    torch.testing.assert_close(model.site(X), bare, rtol=0, atol=0)


def test_full_experts_can_be_loaded_but_not_started_from_packed_weights() -> None:
    bank = ExpertBank(Model(), ExpertConfig("mlp", projections=("up_proj",)))
    with pytest.raises(ValueError, match="--bits 16, or train LoRA experts"):
        bank.add(0)
    weight = torch.randn(OUT, IN, dtype=torch.float16)
    bank.load_state(0, {"model.layers.0.mlp.up_proj.weight": weight})
    [held] = bank.parameters_of(0).values()
    assert held.dtype == torch.float32  # that of the weights that are not packed
