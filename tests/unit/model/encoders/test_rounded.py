"""Rounded copies: what autocast gives, from weights that are rounded once; originals stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

from model.encoders.aligner import AudioAligner, QFormerConfig
from model.encoders.beats import BEATs, BEATsConfig
from model.encoders.projector import build_projector
from model.encoders.rounded import RoundedCopies, rounded_copy

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"image_size": 32, "patch_size": 8}


def clip() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return CLIPVisionModel(CLIPVisionConfig(**SIZES)), (torch.randn(2, 3, 32, 32),)


def siglip() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return SiglipVisionModel(SiglipVisionConfig(**SIZES)), (torch.randn(2, 3, 32, 32),)


def beats() -> tuple[nn.Module, tuple[Tensor, ...]]:
    sizes = {"encoder_layers": 2, "encoder_embed_dim": 24, "encoder_ffn_embed_dim": 48, "embed_dim": 8}
    sizes |= {"encoder_attention_heads": 2, "conv_pos": 8, "conv_pos_groups": 2}
    return BEATs(BEATsConfig(**sizes)), (torch.randn(2, 64, 128), torch.arange(64).expand(2, -1) > 40)


def aligner() -> tuple[nn.Module, tuple[Tensor, ...]]:
    sizes = QFormerConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        encoder_hidden_size=24,
    )
    return AudioAligner(sizes, 3, 12), (torch.randn(2, 20, 24),)


def projector() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return build_projector("mlp2x_gelu", 16, 12), (torch.randn(2, 5, 16),)


def outputs(part: nn.Module, inputs: tuple[Tensor, ...], precision: torch.dtype | None) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
        made = part(*inputs)
    return (made if isinstance(made, Tensor) else made.last_hidden_state).float()


@pytest.mark.parametrize("make", [clip, siglip, beats, aligner, projector])
def test_a_copy_is_as_near_to_float32_as_autocast(
    make: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]],
) -> None:
    torch.manual_seed(0)
    part, inputs = make()
    part.eval()
    for parameter in part.parameters():  # biases and norms that matter
        parameter.data.add_(0.1 * torch.randn(parameter.shape) * (parameter.ndim < 2))
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    exact, autocast = outputs(part, inputs, None), outputs(part, inputs, torch.bfloat16)
    copied = outputs(rounded_copy(part), inputs, torch.bfloat16)
    usual = (autocast - exact).norm()
    assert usual > 1e-4 * exact.norm()
    assert (copied - exact).norm() < 1.3 * usual
    assert (copied - autocast).norm() < 0.01 * autocast.norm()
    assert all(torch.equal(tensor, before[name]) for name, tensor in part.state_dict().items())


def test_linear_layers_hold_16_bits_and_norms_32() -> None:
    part, _ = clip()
    copied = rounded_copy(part)
    kinds = {
        type(module): next(module.parameters()).dtype
        for module in copied.modules()
        if not list(module.children()) and list(module.parameters())
    }
    assert kinds.pop(nn.Linear) == kinds.pop(nn.Conv2d) == torch.bfloat16
    assert set(kinds.values()) == {torch.float32} and len(kinds) >= 2


def test_copies_are_made_once_and_anew_after_a_change() -> None:
    part, copies = nn.Linear(4, 4).requires_grad_(False), RoundedCopies()
    first = copies.of("one", part)
    assert copies.of("one", part) is first and copies.of("other", part) is not first
    part.weight.mul_(2.0)
    again = copies.of("one", part)
    assert isinstance(again, nn.Linear) and torch.equal(again.weight, part.weight.bfloat16())
