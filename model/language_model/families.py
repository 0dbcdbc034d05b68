"""LLM folders of transformers: which families carry experts here, and how their files are read.

A folder is what `save_pretrained` writes: `config.json`, weights (safetensors or .bin, one file or shards)
and a tokenizer. A GGUF file is made into such a folder first.

A family is listed once a test holds it: its decoder takes `inputs_embeds` as they are, its logits are
`lm_head(hidden)` and nothing else, and its MLPs are linear layers `layers.N.mlp.{gate,up,down}_proj`.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from model.encoders.vision import quiet_loading
from model.tensor_files import read_json, read_weights

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")  # model_type; SmolLM and SmolLM2 are llama
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class LLMFiles:
    """What an LLM folder holds, nothing built yet."""

    config: PretrainedConfig
    weights: dict[str, Tensor]  # as stored
    tokenizer: Any


def read_llm(folder: Path) -> LLMFiles:
    """Read an LLM folder.

    Raises: ValueError naming what is missing or unreadable, and for a family that is not supported.
    """
    config, tokenizer = read_config(folder), read_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"{folder}: its tokenizer has no EOS token, so no answer would ever end; set eos_token"
        )
    unused = {*tokenizer.get_added_vocab()} - {tokenizer.eos_token}  # reading GGUF may add one
    vocabulary = tokenizer.get_vocab().items()
    beyond = [token for token, i in vocabulary if i >= config.vocab_size and token not in unused]
    if beyond:
        raise ValueError(
            f"{folder}: {len(beyond)} tokens of the tokenizer, such as {beyond[0]!r}, are beyond the model's "
            f"{config.vocab_size}; they are not of one model"
        )
    return LLMFiles(config, read_weights(folder), tokenizer)


def read_config(folder: Path) -> PretrainedConfig:
    """Configuration of an LLM folder; ValueError for a family that is not supported."""
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in FAMILIES:
        raise ValueError(
            f"{folder / 'config.json'}: model_type {kind!r} is not supported, only {', '.join(FAMILIES)}"
        )
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the kinds vary with what is wrong; the folder is what the user needs to know
        raise ValueError(f"{folder}: its configuration cannot be read: {error}") from error


def read_tokenizer(folder: Path) -> Any:
    """Tokenizer of an LLM folder; ValueError where there is none."""
    if not any((folder / name).is_file() for name in TOKENIZERS):  # transformers would make an empty one
        raise ValueError(f"{folder}: no tokenizer found, expected one of {', '.join(TOKENIZERS)}")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ValueError(f"{folder}: its tokenizer cannot be read: {error}") from error


def convert_gguf(file: Path, folder: Path) -> None:
    """Write a GGUF file as an LLM folder, de-quantised to float16; nothing if that was done before.

    Raises: ValueError without the package gguf, or if transformers cannot read the file.
    """
    source = {"name": file.name, "bytes": file.stat().st_size}
    if (folder / "config.json").is_file() and read_json(folder / "config.json").get("gguf") == source:
        return
    partial = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with quiet_loading():
            llm = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float16, local_files_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    except ImportError as error:
        raise ValueError(f"{file}: reading GGUF needs the package gguf: pip install gguf") from error
    except Exception as error:
        raise ValueError(f"{file}: not a GGUF file that transformers can read: {error}") from error
    llm.hf_quantizer.remove_quantization_config(llm)  # the weights are plain by now
    llm.config.gguf = source
    llm.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
