"""Vectors of bare texts from a language model or an encoder alone, without a whole backbone.

For `question` only the input embeddings and the tokenizer are read: a 7B folder takes as long as a tiny one,
but that a .bin file is held against its checksums as a whole.
Legend: N texts, V vocabulary, D width.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from data.prompts import PromptTokenizer, question_ids
from data.text_features import TextFeatures, check_choice, mending_encoder
from model.language_model.backbone import ALIGNED, is_base, llm_config, load_llm, split_weights
from model.language_model.families import read_llm
from model.language_model.loading import Loading
from model.tensor_files import INDEX_FILES, SINGLE_FILES, read_json, read_plain, read_weights

# How the input embedding is called in the families of Hugging Face models.
EMBEDDING_NAMES = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")


def text_features(texts: Sequence[str], lm: Path, choice: str = "question") -> Tensor:
    """One vector per text. (N, D) float32

    Raises:
        ValueError: a choice that needs more than the text, or files that are missing or do not fit.
    """
    if check_choice(choice) in ("prompt", "clip"):
        raise ValueError(f"text_feature {choice} needs a whole backbone; give question, hidden:L or a folder")
    if choice.startswith("hidden:"):
        found = TextFeatures(choice, load_llm_alone(lm), load_tokenizer(lm))
        return torch.stack([found.of_question(text) for text in texts])
    if choice != "question":
        encoder = mending_encoder(choice)
        return torch.stack([encoder.encode(text) for text in texts])
    tokenizer, embedding = load_tokenizer(lm), load_input_embedding(lm)
    rows = []
    for text in texts:
        ids = question_ids(tokenizer, text)
        if len(ids) == 0 or int(ids.max()) >= len(embedding):
            raise ValueError(
                f"{lm}: question {text!r} has token ids {ids.tolist()} for {len(embedding)} embeddings"
            )
        rows.append(embedding[ids].float().mean(0))
    return torch.stack(rows)


def load_llm_alone(folder: Path) -> PreTrainedModel:
    """The LLM of a base folder or of a plain model folder, in float32."""
    config = read_json(folder / "config.json")
    if config.get("model_type") == ALIGNED:
        folder, config = folder / config["llm"], {}
    if is_base(config):
        weights, *_ = split_weights(folder, read_weights(folder))
        return load_llm(folder, llm_config(folder, config), weights, Loading(), torch.device("cpu"))
    files = read_llm(folder)
    return load_llm(folder, files.config, files.weights, Loading(), torch.device("cpu"))


def load_tokenizer(folder: Path) -> PromptTokenizer:
    """The tokenizer of a model folder; says nothing about model types that transformers does not know."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return PromptTokenizer(transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: no tokenizer there ({str(error).splitlines()[0]})") from error
    finally:
        transformers.logging.set_verbosity(before)


def load_input_embedding(folder: Path) -> Tensor:
    """The input embedding (V, D) of a model folder, read alone from its safetensors or .bin files; all of
    the .bin file that holds it is held against its checksums.

    Raises:
        ValueError: no weights in the folder, a damaged file, or none or several tensors that could be the
            embedding.
    """
    names: dict[str, Path] = {}
    for file, index_name in zip(SINGLE_FILES, INDEX_FILES, strict=True):
        index = folder / index_name
        if index.is_file():
            names = {name: folder / part for name, part in read_json(index)["weight_map"].items()}
        elif (folder / file).is_file():
            names = dict.fromkeys(_tensor_names(folder / file), folder / file)
        if names:
            break
    found = [name for name in names if name.endswith(tuple(f"{stem}.weight" for stem in EMBEDDING_NAMES))]
    if len(found) != 1:
        raise ValueError(
            f"{folder}: {len(names)} tensors, of which {found} look like the input embedding; expected one"
        )
    path = names[found[0]]
    if path.suffix == ".bin":
        return read_plain(path)[found[0]]
    with safe_open(path, "pt") as opened:
        return opened.get_tensor(found[0])


def _tensor_names(path: Path) -> list[str]:
    if path.suffix == ".bin":
        return list(read_plain(path, values=False))
    with safe_open(path, "pt") as opened:
        return list(opened.keys())
