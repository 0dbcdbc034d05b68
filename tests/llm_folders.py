"""Small random LLM folders of every supported family, as `save_pretrained` writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from data.prompts import SYSTEM

TEXT = [SYSTEM, "USER: What makes the sound in the video? ASSISTANT: a dog on the street"]
SIZES: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Family:
    """One kind of LLM and its tokenizer's habit."""

    model_type: str
    bos: str = "put"  # "put" at the start, "named" but never put, or "none"
    changes: dict[str, Any] = field(default_factory=dict)  # of its configuration


FAMILIES = {
    "llama": Family("llama", changes={"rope_parameters": LLAMA3_ROPE}),
    "smollm2": Family("llama", "named", {"tie_word_embeddings": True}),
    "smollm3": Family("smollm3", "named", {"tie_word_embeddings": True, "no_rope_layers": [1, 1, 0]}),
    "mistral": Family("mistral", changes={"sliding_window": 12}),
    "qwen2": Family("qwen2", "none", {"tie_word_embeddings": True}),
    "qwen2_sliding": Family(
        "qwen2", "none", {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}
    ),
    "qwen3": Family("qwen3", "none", {"head_dim": 8}),
}


def write_llm(folder: Path, family: str, seed: int = 0) -> Path:
    """An LLM folder with random weights and a byte-level BPE tokenizer."""
    kind = FAMILIES[family]
    config = AutoConfig.for_model(kind.model_type, **(SIZES | kind.changes))
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    _tokenizer(kind.bos).save_pretrained(folder)
    return folder


def _tokenizer(bos: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    if bos == "put":
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    named = {} if bos == "none" else {"bos_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", **named)
