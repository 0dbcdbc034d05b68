"""Sizes read from modules, and the numbers that follow: held against counted tensors."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from model.language_model.backbone import find_checkpoints, load_backbone
from model.moe.experts import ExpertBank, ExpertConfig
from model.planning.sizes import LLMSizes, PromptTokens, expert_layers, expert_parameters
from model.planning.skeleton import Skeleton, build_skeleton, published_configs, read_configs


@pytest.fixture(scope="module")
def published() -> Skeleton:
    return build_skeleton(published_configs())


def test_the_published_system(published: Skeleton) -> None:
    counted = published.sizes.parameters
    assert counted.llm == 6_738_415_616  # LLaMA-7B
    assert counted.llm_linear == 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert counted.vision == pytest.approx(291e6, rel=0.01)  # ViT-L/14 without its last layer
    assert counted.audio == pytest.approx(90e6, rel=0.01)
    assert (published.sizes.vision.patches, published.sizes.audio.tokens) == (576, 1496)
    assert (published.sizes.vision.layers, published.sizes.aligner.queries) == (23, 50)
    assert published.llm.config.max_position_embeddings >= 2048
    assert all(parameter.is_meta for part in parts(published) for parameter in part.parameters())


def parts(skeleton: Skeleton) -> tuple[nn.Module, ...]:
    return skeleton.llm, skeleton.vision, skeleton.projector, skeleton.audio, skeleton.aligner


def test_full_experts_of_the_published_system_have_two_billion_parameters(published: Skeleton) -> None:
    full = expert_parameters(published.sizes.llm, ExpertConfig("mlp"))
    assert full == 16 * 3 * 4096 * 11008
    assert 2 * full / 1e9 == pytest.approx(4.3, abs=0.05)


def test_sizes_of_a_folder_are_those_of_what_is_loaded(repo_root: Path) -> None:
    paths, _ = find_checkpoints(repo_root / "checkpoints" / "tiny")
    planned = build_skeleton(read_configs(paths))
    loaded = load_backbone(paths)
    encoder, counted = loaded.encoder, planned.sizes.parameters
    for module, number in (
        (loaded.llm, counted.llm),
        (encoder.vision, counted.vision),
        (encoder.projector, counted.projector),
        (encoder.audio, counted.audio),
        (encoder.aligner, counted.aligner),
    ):
        assert sum(parameter.numel() for parameter in module.parameters()) == number
    assert planned.sizes.vision.patches == encoder.vision.patches
    assert planned.sizes.audio.tokens == encoder.audio.tokens_per_chunk


@pytest.mark.parametrize("config", [{}, {"kind": "mlp"}, {"layers": (1, 2)}, {"projections": ("down_proj",)}])
def test_expert_parameters_are_those_of_the_bank(config: dict[str, Any]) -> None:
    expert = ExpertConfig(**{"rank": 4, "layers": "even", **config})
    sizes = LlamaConfig(
        hidden_size=48, intermediate_size=80, num_hidden_layers=5, num_attention_heads=4, vocab_size=90
    )
    with torch.device("meta"):
        bank = ExpertBank(LlamaForCausalLM(sizes), expert)
    llm = LLMSizes.of(sizes)
    assert expert_parameters(llm, expert) == sum(map(math.prod, bank.expected_shapes().values()))
    assert len(expert_layers(llm, expert)) * len(expert.projections) == len(bank.layers)


def test_an_open_clip_tower_is_planned_without_its_weights(repo_root: Path) -> None:
    configs = published_configs()
    swapped = type(configs)(
        configs.source, configs.base, "open_clip:ViT-B-32:laion2b_s34b_b79k", configs.audio, {}
    )
    vision = build_skeleton(swapped).sizes.vision
    assert (vision.layers, vision.width, vision.mlp, vision.patches) == (11, 768, 3072, 49)


def test_a_configuration_without_sizes_is_named() -> None:
    configs = published_configs()
    base = {key: value for key, value in configs.base.items() if key != "query_tokens_size"}
    with pytest.raises(ValueError, match="lacks.*query_tokens_size"):
        build_skeleton(type(configs)(configs.source, base, configs.vision, configs.audio, {}))


def test_scopes_cut_a_prompt_where_the_experts_begin() -> None:
    prompt = PromptTokens(before=50, after=10, answer=3)
    assert prompt.scope("all") == (0, 63)
    assert prompt.scope("text") == (50, 13)
    assert prompt.scope("answer") == (59, 4)
    assert PromptTokens(0, 60, 3).scope("text") == (0, 63)
