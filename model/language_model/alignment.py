"""The aligned layout: an LLM of transformers, frozen towers, and what is trained between them.

`start` makes a backbone whose projector and audio aligner are fresh; `save` writes them, once trained, as a
folder that `load_backbone` reads (layout: backbone.py).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from model.encoders.aligner import AudioAligner, QFormerConfig
from model.encoders.audio import AudioTower
from model.encoders.beats import load_beats
from model.encoders.features import MediaEncoder
from model.encoders.projector import build_projector
from model.encoders.vision import OPEN_CLIP, VisionTower
from model.language_model.backbone import (
    ALIGNED,
    ALIGNER,
    PROJECTOR,
    PROJECTORS,
    Backbone,
    BackbonePaths,
    load_llm,
)
from model.language_model.families import read_llm
from model.language_model.loading import Loading
from model.moe.files import atomic_write
from model.tensor_files import digest_tensors

HEAD_WIDTH = 64  # of a fresh Q-Former


@dataclass(frozen=True)
class BridgeConfig:
    """What is put between towers and LLM."""

    vision_layer: int = -2  # layer of the vision tower, from the end
    projector: str = "mlp2x_gelu"  # see build_projector
    query_tokens: int = 32  # audio tokens per window
    window_seconds: float = 30.0  # audio window
    qformer: Mapping[str, Any] | None = (
        None  # sizes, see QFormerConfig; None: two layers as wide as the tower
    )


def start(
    paths: BackbonePaths,
    bridge: BridgeConfig,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Backbone:
    """A backbone with fresh projector and aligner; `paths.base` is an LLM folder (see families.py).

    Its identity is that of the LLM: the trained rest is added by `save`.

    Raises: ValueError naming file or folder and what is missing, unreadable or does not fit.
    """
    files = read_llm(Path(paths.base))
    vision = VisionTower.load(paths.vision, bridge.vision_layer)
    audio = AudioTower(load_beats(paths.audio), bridge.window_seconds)
    width = files.config.hidden_size
    qformer = QFormerConfig.from_dict(
        _default_sizes(audio.width) if bridge.qformer is None else bridge.qformer
    )
    if qformer.encoder_hidden_size != audio.width:
        raise ValueError(
            f"{paths.audio}: features are {audio.width} wide, but the Q-Former reads "
            f"{qformer.encoder_hidden_size}; set encoder_hidden_size in --audio_qformer"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projector = build_projector(bridge.projector, vision.width, width)
        aligner = AudioAligner(qformer, bridge.query_tokens, width)
    encoder = MediaEncoder(vision, projector, audio, aligner)
    config = {
        "model_type": ALIGNED,
        "hidden_size": width,
        "mm_projector_type": bridge.projector,
        "mm_hidden_size": vision.width,
        "mm_vision_select_layer": bridge.vision_layer,
        "mm_audio_hidden_size": audio.width,
        "audio_projector_type": "linear",
        "audio_qformer": asdict(qformer),
        "audio_window_seconds": bridge.window_seconds,
        "query_tokens_size": bridge.query_tokens,
    }
    identity = digest_tensors(files.weights)
    loading, device = Loading(dtype), torch.device(device)
    llm = load_llm(Path(paths.base), files.config, files.weights, loading, device)
    return Backbone(llm, files.tokenizer, encoder.to(device), identity, config, paths, loading)


def bridge_tensors(encoder: MediaEncoder) -> dict[str, Tensor]:
    """Tensors of projector and aligner under their published names, on the CPU."""
    named = {f"{PROJECTOR}{name}": tensor for name, tensor in encoder.projector.state_dict().items()}
    named |= {f"{ALIGNER}{name}": tensor for name, tensor in encoder.aligner.state_dict().items()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}


def save_aligned(folder: Path, backbone: Backbone) -> str:
    """Write a backbone made by `start` and trained since; `config.json` last. Returns its identity.

    Raises: OSError if the folder cannot be written.
    """
    paths, tensors = backbone.paths, bridge_tensors(backbone.encoder)
    identity = digest_tensors(read_llm(Path(paths.base)).weights | tensors)
    vision = str(paths.vision)
    config = {
        **backbone.config,
        "llm": _reference(paths.base, folder),
        "mm_vision_tower": vision if vision.startswith(OPEN_CLIP) else _reference(Path(vision), folder),
        "mm_audio_tower": _reference(paths.audio, folder),
        "identity": identity,
    }
    for name, content in (
        (PROJECTORS, save(tensors)),
        ("config.json", (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()),
    ):
        with atomic_write(folder / name) as file:
            file.write(content)
    return identity


def _default_sizes(width: int) -> dict[str, Any]:
    """A Q-Former small enough to be trained from nothing on captions."""
    return {
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "intermediate_size": 4 * width,
        "cross_attention_frequency": 1,
        "encoder_hidden_size": width,
        "dropout": 0.0,
    }


def _reference(path: Path, folder: Path) -> str:
    """Relative to the folder if inside of it or beside it, so that both can move together; else absolute."""
    path, folder = path.resolve(), folder.resolve()
    if path.is_relative_to(folder):
        return str(path.relative_to(folder))
    if path.is_relative_to(folder.parent):
        return str(".." / path.relative_to(folder.parent))
    return str(path)
