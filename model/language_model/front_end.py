"""A backbone without its LLM: towers, projectors, input embedding and tokenizer.

What has to run in front of a server that holds the LLM: features to route on and prompts as embeddings. The
folder is a base folder of the published layout with the LLM's layers left out.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from model.language_model.backbone import (
    ALIGNER,
    PROJECTOR,
    Backbone,
    BackbonePaths,
    load_encoder,
    load_tokenizer,
    split_weights,
)
from model.moe.files import write_tensor_file
from model.tensor_files import digest_tensors, read_json, read_weights

EMBEDDING = "model.embed_tokens.weight"
TOKENIZER_FILES = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


class EmbeddingOnly(nn.Module):
    """In the place of the LLM: its input embedding (V, D)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(weight)

    def get_input_embeddings(self) -> nn.Embedding:
        """As of a transformers model."""
        return self.embedding

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError("this front end holds no LLM; send the prompt to the server that does")


def save_front_end(
    base: str | Path, folder: str | Path, qformer: Mapping[str, Any] | None = None
) -> tuple[str, str]:
    """Copy what a front end needs of a base folder; returns identity of the base and digest of the copy.

    Args:
        qformer: Q-Former sizes where config.json has no `audio_qformer`; they are added to it.

    Raises:
        ValueError: the base folder is incomplete.
    """
    base, folder = Path(base), Path(folder)
    weights = read_weights(base)
    kept = _front_tensors(weights, base)
    *_, identity = split_weights(base, weights)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensor_file(folder / "model.safetensors", kept)
    config = read_json(base / "config.json")
    if qformer is not None:
        config.setdefault("audio_qformer", dict(qformer))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    return identity, digest_tensors(kept)


def load_front_end(
    paths: BackbonePaths, identity: str, digest: str, *, device: str | torch.device = "cpu"
) -> Backbone:
    """Towers, projectors, input embedding and tokenizer; `llm` is an EmbeddingOnly, in float32.

    Args:
        paths: `base` is a folder that `save_front_end` wrote, or a whole base folder.
        identity: of the backbone it is part of.
        digest: of its tensors; what anchors and experts were made with.

    Raises:
        ValueError: incomplete, or part of another backbone.
    """
    base = Path(paths.base)
    config = read_json(base / "config.json")
    tensors = _front_tensors(read_weights(base), base)
    if digest_tensors(tensors) != digest:
        raise ValueError(f"{base}: embedding and projectors are not those that were exported; use its own")
    parts = [
        {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)}
        for prefix in (PROJECTOR, ALIGNER)
    ]
    encoder = load_encoder(paths, config, parts[0], parts[1], None)
    llm: Any = EmbeddingOnly(tensors[EMBEDDING].float())
    return Backbone(llm.to(device), load_tokenizer(base), encoder.to(device), identity, config, paths)


def _front_tensors(weights: dict[str, Tensor], base: Path) -> dict[str, Tensor]:
    """The input embedding and the projectors' tensors."""
    kept = {k: v for k, v in weights.items() if k == EMBEDDING or k.startswith((PROJECTOR, ALIGNER))}
    if EMBEDDING not in kept or len(kept) < 3:
        raise ValueError(f"{base}: expected {EMBEDDING}, {PROJECTOR}* and {ALIGNER}*, got {sorted(kept)[:3]}")
    return kept
