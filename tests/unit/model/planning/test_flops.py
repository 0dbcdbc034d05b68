"""FLOP formulas equal what torch counts, part by part."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from model.encoders.aligner import AudioAligner, QFormerConfig
from model.encoders.beats import BEATs, BEATsConfig
from model.encoders.projector import build_projector
from model.language_model.anchor_lm import AnchorLM
from model.language_model.prompt_pool import PoolConfig, PromptPool
from model.language_model.splice import VIDEO_ID, PromptBatch
from model.moe.expert_sites import GatedConfig
from model.moe.experts import NO_EXPERT, ExpertConfig
from model.moe.gated import open_bank
from model.planning.flops import (
    aligner_flops,
    answer_flops,
    chunk_flops,
    frame_flops,
    prefill_flops,
    projector_flops,
    training_flops,
)
from model.planning.pools import prompt_training_flops
from model.planning.sizes import AlignerSizes, AudioSizes, LLMSizes, PromptTokens, VisionSizes
from model.planning.skeleton import build_skeleton, published_configs

VIDEO, TEXT, ANSWER, WIDTH = 40, 20, 4, 96
PROMPT = PromptTokens(before=10 + VIDEO, after=TEXT - 10, answer=ANSWER)


def counted(module: nn.Module, *inputs: torch.Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.requires_grad_(False)(*inputs)
    return total(counter)


def test_the_published_parts() -> None:
    """The known sizes of the issue: about 0.38 TF a frame, 0.35 a chunk, 9.2 for 680 tokens."""
    sizes = build_skeleton(published_configs()).sizes
    assert frame_flops(sizes.vision) / 1e12 == pytest.approx(0.38, rel=0.05)
    assert chunk_flops(sizes.audio) / 1e12 == pytest.approx(0.35, rel=0.02)
    assert prefill_flops(sizes.llm, 680, logits=680) / 1e12 == pytest.approx(9.2, rel=0.01)


def test_vision_tower() -> None:
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
    )
    tower = CLIPVisionModel._from_config(config, attn_implementation="eager").eval()
    sizes = VisionSizes(layers=3, width=32, mlp=48, patches=16, extra_tokens=1, patch_pixels=3 * 16**2)
    assert frame_flops(sizes) == counted(tower, torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("kernel", [4, 5])
def test_audio_tower(kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = BEATsConfig(
        encoder_layers=2,
        encoder_embed_dim=24,
        encoder_ffn_embed_dim=40,
        encoder_attention_heads=2,
        embed_dim=16,
        conv_pos=kernel,
        conv_pos_groups=2,
    )
    sizes = AudioSizes(2, 24, 40, 2, 16, 16**2, tokens=24, kernel=kernel, groups=2, gated=True)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: torch.Tensor) -> torch.Tensor:
        return torch.softmax(q @ k.transpose(-1, -2) + attn_mask, -1) @ v  # the CPU's kernel is not counted

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", attend)
    assert chunk_flops(sizes) == counted(BEATs(config).eval(), torch.zeros(1, 48, 128))


def test_aligner_and_projector() -> None:
    config = QFormerConfig(24, 3, 2, 40, cross_attention_frequency=2, encoder_hidden_size=16)
    aligner = AudioAligner(config, 5, 32).eval()
    sizes = AlignerSizes(3, 24, 40, queries=5, cross_every=2, source_tokens=11, source_width=16)
    expected = aligner_flops(sizes) + projector_flops(5, ((24, 32),))
    assert expected == counted(aligner, torch.zeros(1, 11, 16))
    projector = build_projector("mlp2x_gelu", 16, 32)
    assert projector_flops(7, ((16, 32), (32, 32))) == counted(projector, torch.zeros(7, 16))


def make(kv_heads: int = 2, **expert: Any) -> tuple[AnchorLM, LLMSizes]:
    torch.manual_seed(0)
    config = LlamaConfig(
        num_hidden_layers=5,
        hidden_size=WIDTH,
        num_attention_heads=6,
        num_key_value_heads=kv_heads,
        intermediate_size=160,
        vocab_size=500,
    )
    llm = LlamaForCausalLM._from_config(config, attn_implementation="eager").eval()
    bank = open_bank(llm, (GatedConfig if "branches" in expert else ExpertConfig)(**expert))
    bank.add(0, generator=torch.Generator().manual_seed(0))
    return AnchorLM(llm, bank), LLMSizes.of(config)


def total(counter: FlopCounterMode) -> int:
    """FLOPs without those of the rotary angles, which some versions of torch compute by a product."""
    parts = counter.get_flop_counts()
    angles = sum(sum(ops.values()) for name, ops in parts.items() if name.endswith("rotary_emb"))
    return counter.get_total_flops() - angles


def batch(with_answer: bool) -> PromptBatch:
    ids = torch.arange(5, 6 + TEXT + ANSWER * with_answer)
    ids[10] = VIDEO_ID  # stands for the video, so that the text has TEXT tokens
    labels = torch.where(torch.arange(len(ids)) > TEXT, ids, -100)
    return PromptBatch([ids], [[torch.randn(VIDEO, WIDTH)]], [labels] if with_answer else None)


@pytest.mark.parametrize("heads", [2, 6])
def test_prefill_and_answer(heads: int) -> None:
    model, llm = make(heads)
    prompt = batch(with_answer=False)
    for tokens, expected in (
        (1, prefill_flops(llm, PROMPT.prompt)),
        (3, answer_flops(llm, PROMPT.prompt, 3)),
    ):
        with FlopCounterMode(display=False) as counter:
            model.generate(prompt, [NO_EXPERT], tokens, eos_id=-1)
        assert total(counter) == expected


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "expert",
    [
        {},
        {"kind": "mlp"},
        {"layers": (2, 4)},
        {"projections": ("down_proj",)},
        {"projections": ("up_proj",), "kind": "mlp"},
        {"projections": ("q_proj", "o_proj", "up_proj")},
        {"projections": ("o_proj",), "layers": (1, 2)},
        {"projections": ("k_proj", "v_proj", "down_proj"), "kind": "mlp"},
        {"branches": 4},
        {"branches": 2, "projections": ("q_proj", "up_proj"), "layers": (1, 2)},
        {"branches": 2, "tokens": "text"},
        {"tokens": "text"},
        {"tokens": "answer", "kind": "mlp"},
    ],
)
def test_training(expert: dict[str, Any], checkpointing: bool) -> None:
    model, llm = make(**expert)
    assert model.bank is not None
    if checkpointing:
        model.enable_gradient_checkpointing()
    model.train()
    model.bank.train_only(0)
    prompt = batch(with_answer=True)
    planned = training_flops(llm, model.bank.config, PROMPT, checkpointing=checkpointing)
    if planned.prefix:
        with FlopCounterMode(display=False) as counter:
            model._after_prefix(prompt, "right", model.bank.config.tokens)
        assert total(counter) == planned.prefix
    with FlopCounterMode(display=False) as counter, model.bank.use([0]):
        loss = model(prompt, [0]).sum
        assert total(counter) == planned.forward
        loss.backward()
    assert total(counter) == planned.repeated


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("place", ["answer", "text"])
def test_training_of_prompts(place: Any, checkpointing: bool) -> None:
    model, llm = make()
    if checkpointing:
        model.enable_gradient_checkpointing()
    model.train().requires_grad_(False)
    pool = PromptPool(PoolConfig(size=4, length=3, top=2, place=place), {"text": 8}, WIDTH)
    pool.start(model.llm.get_input_embeddings(), torch.Generator().manual_seed(0))
    prompt = pool.requires_grad_(True).prompted(batch(with_answer=True), torch.tensor([[0, 1]]))
    planned = prompt_training_flops(llm, pool.config, PROMPT, checkpointing=checkpointing)
    assert bool(planned.prefix) != checkpointing
    if planned.prefix:
        with FlopCounterMode(display=False) as counter:
            model._after_prefix(prompt, "right", "soft")
        assert total(counter) == planned.prefix
    with FlopCounterMode(display=False) as counter:
        loss = model(prompt, [NO_EXPERT]).sum
        assert total(counter) == planned.forward
        loss.backward()
    assert total(counter) == planned.repeated
