"""Packed towers give what autocast gives, up to rounding."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.activations import GELUActivation, GELUTanh, QuickGELUActivation

from model.encoders.aligner import AudioAligner, QFormerConfig
from model.encoders.beats import BEATs, BEATsConfig
from model.encoders.packed import PackedLinear, ShortNorm, pack, packable
from model.encoders.projector import build_projector

pytestmark = pytest.mark.skipif(not packable(), reason="no 16-bit products here")


class MLP(nn.Module):
    """As in CLIP."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.fc1, self.activation_fn, self.fc2 = nn.Linear(16, 64), activation, nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.activation_fn(self.fc1(x)))
        return y


def assert_packed(model: nn.Module, call: Callable[[], Tensor]) -> None:
    """Results before and after packing are as near as 16 bits are, and no linear layer is left."""
    model.requires_grad_(False).eval()
    with torch.no_grad():
        exact = call()
        pack(model)
        with torch.autocast("cpu", torch.bfloat16):
            short = call().float()
    assert 0 < (short - exact).norm() < 0.02 * exact.norm()
    assert not any(type(module) is nn.Linear for module in model.modules())


@pytest.mark.parametrize("activation", [QuickGELUActivation(), GELUTanh(), GELUActivation(), nn.GELU()])
def test_activations_are_joined_to_the_first_map(activation: nn.Module) -> None:
    torch.manual_seed(0)
    model, x = MLP(activation), 3 * torch.randn(2, 5, 16)
    assert_packed(model, lambda: model(x))
    assert isinstance(model.fc1, PackedLinear) and model.fc1.activation != "none"
    assert isinstance(model.activation_fn, nn.Identity)


def test_another_activation_stays_where_it_is() -> None:
    torch.manual_seed(0)
    model, x = MLP(nn.Tanh()), torch.randn(2, 5, 16)
    assert_packed(model, lambda: model(x))
    assert isinstance(model.activation_fn, nn.Tanh)


def test_a_siglip_tower() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = SiglipVisionModel(
        SiglipVisionConfig(**sizes, image_size=28, patch_size=14, vision_use_head=False)
    )
    pixels = torch.randn(2, 3, 28, 28)
    assert_packed(model, lambda: model(pixels).last_hidden_state)
    assert sum(isinstance(module, ShortNorm) for module in model.modules()) == 4


@pytest.mark.parametrize("first", [False, True])
def test_beats(first: bool) -> None:
    torch.manual_seed(0)
    model = BEATs(
        BEATsConfig(
            2, 32, 64, 4, 16, conv_pos=8, conv_pos_groups=4, layer_norm_first=first, deep_norm=not first
        )
    )
    fbank, padding = torch.randn(2, 64, 128), torch.zeros(2, 64, dtype=torch.bool)
    padding[1, 40:] = True
    assert_packed(model, lambda: model(fbank, padding))


def test_the_aligner_and_the_projector() -> None:
    torch.manual_seed(0)
    sizes = QFormerConfig(32, 2, 4, 64, encoder_hidden_size=24)
    model, x = AudioAligner(sizes, 5, 12), torch.randn(3, 7, 24)
    assert_packed(model, lambda: model(x))
    projector, y = build_projector("mlp2x_gelu", 16, 12), torch.randn(3, 16)
    assert_packed(projector, lambda: projector(y))
