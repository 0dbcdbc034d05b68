"""The audio aligner against transformers' Q-Former, and projectors."""

import pytest
import torch
from torch import nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from model.encoders.aligner import AudioAligner, QFormerConfig
from model.encoders.projector import build_projector

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "encoder_hidden_size": 16,
}


@pytest.fixture(scope="module")
def aligner() -> AudioAligner:
    torch.manual_seed(0)
    return AudioAligner(
        QFormerConfig.from_dict({**SIZES, "vocab_size": 64}), query_tokens=5, llm_width=12
    ).eval()


@torch.no_grad()
def test_equals_transformers_q_former(aligner: AudioAligner) -> None:
    config = Blip2QFormerConfig(**SIZES, cross_attention_frequency=2, hidden_act="gelu", layer_norm_eps=1e-12)
    reference = Blip2QFormerModel(config).eval()
    reference.load_state_dict(
        {
            k.removeprefix("qformer.qformer."): v
            for k, v in aligner.state_dict().items()
            if k.startswith("qformer.qformer.")
        }
    )
    audio = torch.randn(3, 7, 16)
    states = reference(
        query_embeds=aligner.query_tokens.expand(3, -1, -1),
        encoder_hidden_states=audio,
        encoder_attention_mask=torch.ones(3, 7, dtype=torch.long),
    ).last_hidden_state
    torch.testing.assert_close(aligner(audio), aligner.projector(states), atol=1e-5, rtol=1e-5)
    assert aligner(audio).shape == (3, 5, 12)


def test_published_key_names(aligner: AudioAligner) -> None:
    keys = set(aligner.state_dict())
    layer = "qformer.qformer.encoder.layer"
    assert {"query_tokens", "projector.weight", "projector.bias", "qformer.qformer.layernorm.weight"} <= keys
    assert f"{layer}.0.crossattention.attention.key.weight" in keys
    assert f"{layer}.1.crossattention.attention.key.weight" not in keys
    assert f"{layer}.2.intermediate_query.dense.weight" in keys


def test_published_sizes_are_the_defaults() -> None:
    config = QFormerConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 12, 12)
    assert (config.intermediate_size, config.cross_attention_frequency) == (3072, 2)


def test_gradients_reach_the_queries(aligner: AudioAligner) -> None:
    (gradient,) = torch.autograd.grad(aligner(torch.randn(1, 4, 16)).square().sum(), aligner.query_tokens)
    assert gradient.abs().min() > 0


def test_wrong_sizes_are_refused(aligner: AudioAligner) -> None:
    with pytest.raises(ValueError, match="heads"):
        QFormerConfig.from_dict({"heads": 3})
    with pytest.raises(ValueError, match="8 wide.*expects 16"):
        aligner(torch.zeros(1, 4, 8))


def test_projector_kinds() -> None:
    mlp = build_projector("mlp2x_gelu", 4, 6)
    assert set(mlp.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert mlp(torch.zeros(3, 4)).shape == (3, 6)
    assert isinstance(mlp.get_submodule("1"), nn.GELU)
    assert len(build_projector("mlp1x_gelu", 4, 6).state_dict()) == 2
    assert set(build_projector("linear", 4, 6).state_dict()) == {"weight", "bias"}
    x = torch.randn(2, 4)
    assert torch.equal(build_projector("identity", 4, 4)(x), x)
    for kind, width, reason in (
        ("mlp2x_relu", 4, "mlp2x_relu"),
        ("mlp0x_gelu", 4, "mlp0x"),
        ("identity", 5, "equal"),
    ):
        with pytest.raises(ValueError, match=reason):
            build_projector(kind, width, 6)
