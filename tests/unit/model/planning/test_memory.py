"""Memory formulas: what layers keep, held against tallied tensors; how strategies divide it."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from model.language_model import block_attention
from model.language_model.anchor_lm import AnchorLM
from model.language_model.prefix import BOUND
from model.language_model.splice import VIDEO_ID, PromptBatch
from model.moe.expert_sites import GatedConfig
from model.moe.experts import ExpertConfig
from model.moe.gated import open_bank
from model.planning.memory import (
    BUCKET,
    Setup,
    activation_bytes,
    kept_prefixes,
    layer_activations,
    llm_bytes,
    prefix_bytes,
    stored_bytes,
    training_memory,
)
from model.planning.sizes import BackboneSizes, LLMSizes, PromptTokens, expert_parameters
from model.planning.skeleton import build_skeleton, published_configs
from tests.memory_tally import MemoryTally

PROMPT = PromptTokens(before=50, after=10, answer=4)
ROWS = 3


@pytest.fixture(scope="module")
def published() -> BackboneSizes:
    return build_skeleton(published_configs()).sizes


def made(**expert: Any) -> ExpertConfig:
    return (GatedConfig if "branches" in expert else ExpertConfig)(**expert)


def kept_and_peak(
    dtype: torch.dtype, attention: str, checkpointing: bool, **expert: Any
) -> tuple[int, int, LLMSizes, ExpertConfig]:
    """Bytes that a forward pass leaves for backward, and the peak of both; rows differ in length by one."""
    torch.manual_seed(0)
    block_attention.register()
    config = LlamaConfig(
        num_hidden_layers=7,
        hidden_size=192,
        num_attention_heads=6,
        num_key_value_heads=2,
        intermediate_size=320,
        vocab_size=1000,
    )
    llm = LlamaForCausalLM._from_config(config, attn_implementation=attention).to(dtype).eval()
    bank = open_bank(llm, made(**expert))
    bank.add(0, generator=torch.Generator().manual_seed(0))
    model = AnchorLM(llm, bank)
    if checkpointing:
        model.enable_gradient_checkpointing()
    model.train()
    bank.train_only(0)
    ids = [torch.arange(5, 26 + PROMPT.answer - row % 2) for row in range(ROWS)]
    for row in ids:
        row[10] = VIDEO_ID
    labels = [torch.where(torch.arange(len(row)) >= len(row) - PROMPT.answer, row, -100) for row in ids]
    prompts = PromptBatch(ids, [[torch.randn(40, 192, dtype=dtype)] for _ in ids], labels)
    model(prompts, [0] * ROWS)  # prefixes are kept from here on
    tally = MemoryTally()
    tally.add(model.parameters())
    before = tally.now
    with tally, bank.use([0] * ROWS):
        loss = model(prompts, [0] * ROWS).sum
        kept = tally.now - before
        loss.backward()
    return kept, tally.peak - before, LLMSizes.of(config), bank.config


@pytest.mark.parametrize(
    ("dtype", "attention", "expert"),
    [
        (torch.float32, "sdpa", {}),
        (torch.bfloat16, "sdpa", {"kind": "mlp"}),
        (torch.float32, "eager", {"kind": "mlp"}),
        (torch.bfloat16, "eager", {}),
        (torch.float32, "sdpa", {"layers": (3, 5)}),
        (torch.bfloat16, "sdpa", {"projections": ("down_proj",)}),
        (torch.float32, "sdpa", {"projections": ("q_proj", "o_proj", "down_proj")}),
        (torch.bfloat16, "eager", {"projections": ("q_proj", "v_proj"), "layers": (2, 3)}),
        (torch.float32, "sdpa", {"projections": ("o_proj",)}),
        (torch.bfloat16, "blocks", {}),
        (torch.float32, "blocks", {"projections": ("q_proj", "o_proj")}),
        (torch.bfloat16, "blocks", {"tokens": "text"}),
        (torch.float32, "sdpa", {"branches": 8, "projections": ("q_proj", "o_proj", "up_proj", "down_proj")}),
        (torch.bfloat16, "sdpa", {"branches": 16}),
        (torch.float32, "sdpa", {"tokens": "text"}),
        (torch.bfloat16, "sdpa", {"tokens": "answer"}),
    ],
)
def test_activations(dtype: torch.dtype, attention: str, expert: dict[str, Any]) -> None:
    kept, peak, llm, config = kept_and_peak(dtype, attention, False, **expert)
    setup = Setup(ROWS, 1, dtype.itemsize, False, attn_implementation=attention)
    past, tokens = PROMPT.scope(config.tokens)
    first = expert.get("layers", (0,))[0]
    layers = sum(layer_activations(llm, config, setup, tokens, past, n) for n in range(first, llm.layers))
    assert layers == pytest.approx(kept, rel=0.1)
    assert activation_bytes(llm, config, setup, PROMPT) == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("expert", [{}, {"kind": "mlp"}, {"branches": 8}], ids=["lora", "mlp", "gated"])
def test_activations_with_checkpointing(dtype: torch.dtype, expert: dict[str, Any]) -> None:
    _, peak, llm, config = kept_and_peak(dtype, "sdpa", True, **expert)
    setup, gradients = Setup(ROWS, 1, dtype.itemsize, True), 4 * expert_parameters(llm, config)
    assert activation_bytes(llm, config, setup, PROMPT, gradients) == pytest.approx(peak, rel=0.15)


def test_no_mask_is_kept_by_flash_attention_or_for_one_row(published: BackboneSizes) -> None:
    expert, llm = ExpertConfig(), published.llm
    padded = layer_activations(llm, expert, Setup(2, 1, 2, False), 680, 0, 1)
    flash = layer_activations(
        llm, expert, Setup(2, 1, 2, False, attn_implementation="flash_attention_2"), 680, 0, 1
    )
    assert padded - flash == 2 * 2 * 680 * 680
    assert layer_activations(llm, expert, Setup(1, 1, 2, False), 680, 0, 1) * 2 == flash


def test_weights_by_number_format(published: BackboneSizes) -> None:
    """Published figures: 13.5 GB in 16 bits; about half and a quarter of the linear layers' part."""
    parameters = published.parameters
    assert llm_bytes(parameters, 16, 2) == 2 * parameters.llm
    assert llm_bytes(parameters, 8, 2) / 1e9 == pytest.approx(7.0, abs=0.05)
    assert llm_bytes(parameters, 4, 2) / 1e9 == pytest.approx(3.87, abs=0.05)


def test_strategies_divide_what_they_say(published: BackboneSizes) -> None:
    expert, setup, prompt = ExpertConfig("mlp"), Setup(2, 4, 2, True), PromptTokens(666, 14, 3)
    trained, frozen = expert_parameters(published.llm, expert), published.parameters.llm

    def memory(strategy: str, gpus: int) -> Any:
        return training_memory(published, expert, setup, prompt, strategy=strategy, gpus=gpus)

    plain = memory("plain", 1)
    assert (plain.llm, plain.expert, plain.optimiser) == (2 * frozen, 4 * trained, 8 * trained)
    assert plain.gradients == 4 * trained  # micro-batches are accumulated
    assert memory("plain", 8).expert == 8 * trained  # buckets of DistributedDataParallel
    two = memory("zero2", 8)
    assert two.llm == 2 * frozen
    assert two.expert == 2 * trained + 2 * 2 * BUCKET
    assert (two.optimiser, two.gradients) == (12 * trained // 8, 6 * trained // 8)
    assert memory("zero2_offload", 8).host == 18 * trained
    assert memory("zero3", 64).total < memory("zero3", 8).total < two.total
    assert memory("zero3_offload", 1).optimiser == 0
    with pytest.raises(AssertionError):
        memory("zero9", 1)


def test_gradients_take_the_place_of_activations_without_accumulation(published: BackboneSizes) -> None:
    once = training_memory(
        published, ExpertConfig(), Setup(2, 1, 2, False), PromptTokens(666, 14, 3), strategy="plain"
    )
    assert once.gradients == 0


def test_prefixes_are_kept_up_to_the_bound(published: BackboneSizes) -> None:
    llm, prompt, b = published.llm, PromptTokens(666, 14, 3), 2
    each = prefix_bytes(llm, 679, b)
    assert each == 679 * 2 * 32 * 4096 * 2
    assert kept_prefixes(llm, ExpertConfig(tokens="answer"), prompt, 1000, b) == BOUND // each
    assert kept_prefixes(llm, ExpertConfig(tokens="answer"), prompt, 2, b) == 2
    assert kept_prefixes(llm, ExpertConfig(), prompt, 1000, b) == 0


def test_a_clip_takes_five_megabytes(published: BackboneSizes) -> None:
    frames, sound = stored_bytes(published, chunks=1, bytes_per_number=2)
    assert frames == 576 * 4096 * 2 + 1024 * 4
    assert sound == 50 * 4096 * 2 + 768 * 4
    assert (frames + sound) / 1e6 == pytest.approx(5.1, abs=0.1)


def test_the_tally_sees_what_is_freed() -> None:
    tally = MemoryTally()
    kept = nn.Parameter(torch.zeros(10))
    tally.add([kept, kept])
    with tally:
        made = kept * 2
        view = made[:5]
        assert tally.now == 80
        del made
        assert tally.now == 80  # the view holds it
        del view
    assert (tally.now, tally.peak) == (40, 80)
