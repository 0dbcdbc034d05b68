"""A backbone without weights: its modules on the meta device, their parameters counted, their sizes read.

The sizes come from configuration files only; where there are none, from `published.json`, the sizes of the
published system: LLaMA-7B (Vicuna v1.5, 32 layers, 4096 wide), CLIP ViT-L/14-336, BEATs_iter3+, a Q-Former of
12 layers with 50 queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel

from model.encoders.aligner import AudioAligner, QFormerConfig
from model.encoders.audio import MEL_BINS, SAMPLE_RATE, num_frames
from model.encoders.beats import BEATs, BEATsConfig
from model.encoders.projector import build_projector
from model.encoders.vision import OPEN_CLIP
from model.language_model.backbone import BackbonePaths, llm_config
from model.planning.sizes import (
    AlignerSizes,
    AudioSizes,
    BackboneSizes,
    LLMSizes,
    Parameters,
    VisionSizes,
)
from model.tensor_files import read_json, read_plain

PUBLISHED = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Configs:
    """What the modules are built from."""

    source: Path  # folder of the LLM, or the file of the published sizes
    base: Mapping[str, Any]  # config.json of the LLM folder
    vision: Mapping[str, Any] | str  # config.json of the vision folder, or an `open_clip:` name
    audio: BEATsConfig
    qformer: Mapping[str, Any]  # sizes where `base` has no audio_qformer


def read_configs(paths: BackbonePaths, qformer: Mapping[str, Any] | None = None) -> Configs:
    """The configurations of a backbone's files; no weight is read. Raises ValueError for a file that is no
    good."""
    vision = paths.vision
    audio = read_plain(paths.audio)
    if not isinstance(audio, dict) or "cfg" not in audio:
        raise ValueError(f"{paths.audio}: expected a dict with 'cfg' (Microsoft's BEATs layout)")
    return Configs(
        Path(paths.base),
        read_json(Path(paths.base) / "config.json"),
        str(vision) if str(vision).startswith(OPEN_CLIP) else read_json(Path(vision) / "config.json"),
        BEATsConfig.from_dict(audio["cfg"]),
        qformer or {},
    )


def published_configs() -> Configs:
    """The published system's, without its files."""
    stored = read_json(PUBLISHED)
    return Configs(PUBLISHED, stored["base"], stored["vision"], BEATsConfig(), {})


@dataclass(frozen=True)
class Skeleton:
    """The modules of a backbone and their sizes."""

    llm: PreTrainedModel
    vision: nn.Module  # without the layers above the selected one
    projector: nn.Module
    audio: BEATs
    aligner: AudioAligner
    sizes: BackboneSizes


def build_skeleton(configs: Configs, device: str = "meta") -> Skeleton:
    """Build all modules, by default without memory for their weights.

    Raises:
        ValueError: a configuration lacks something or names an unsupported model.
    """
    base = configs.base
    missing = [key for key in ("hidden_size", "mm_projector_type", "query_tokens_size") if key not in base]
    if missing:
        raise ValueError(f"{configs.source / 'config.json'}: lacks {missing}")
    width, kind = base["hidden_size"], base.get("audio_projector_type", "linear")
    with torch.device(device):
        llm = AutoModelForCausalLM.from_config(llm_config(configs.source, base), dtype=torch.float32)
        vision, vision_sizes = _vision(configs.vision, base.get("mm_vision_select_layer", -2))
        projector = build_projector(base["mm_projector_type"], vision_sizes.width, width)
        audio = BEATs(configs.audio)
        qformer = QFormerConfig.from_dict(base.get("audio_qformer", configs.qformer))
        aligner = AudioAligner(qformer, base["query_tokens_size"], width, kind)
    window = round(base.get("audio_window_seconds", 30.0) * SAMPLE_RATE)
    sizes = BackboneSizes(
        llm=LLMSizes.of(llm.config),
        vision=vision_sizes,
        audio=_audio_sizes(audio, audio.num_tokens(num_frames(window), MEL_BINS)),
        aligner=_aligner_sizes(aligner, audio.num_tokens(num_frames(window), MEL_BINS)),
        vision_projector=_maps(projector),
        audio_projector=_maps(aligner.projector),
        parameters=_parameters(llm, vision, projector, audio, aligner),
    )
    return Skeleton(llm, vision, projector, audio, aligner, sizes)


def _vision(config: Mapping[str, Any] | str, select_layer: int) -> tuple[nn.Module, VisionSizes]:
    """The vision tower up to the selected layer."""
    if isinstance(config, str):
        return _open_clip(config.removeprefix(OPEN_CLIP), select_layer)
    made = AutoConfig.for_model(**config)
    sizes = getattr(made, "vision_config", made)
    tower = AutoModel.from_config(sizes, dtype=torch.float32)
    body = getattr(tower, "vision_model", tower)
    body.encoder.layers = body.encoder.layers[: len(body.encoder.layers) + select_layer + 1]
    patches = (sizes.image_size // sizes.patch_size) ** 2
    return tower, VisionSizes(
        layers=len(body.encoder.layers),
        width=sizes.hidden_size,
        mlp=sizes.intermediate_size,
        patches=patches,
        extra_tokens=body.embeddings.position_embedding.num_embeddings - patches,
        patch_pixels=3 * sizes.patch_size**2,
    )


def _open_clip(name: str, select_layer: int) -> tuple[nn.Module, VisionSizes]:
    """An open_clip tower; blocks above the selected one are there, but not run."""
    import open_clip

    device = torch.empty(0).device  # the one in force, which open_clip asks for again

    if not name.startswith(("local-dir:", "hf-hub:")):
        name = name.partition(":")[0]
    visual: Any = open_clip.create_model(name, load_weights=False, device=device).visual
    blocks = visual.transformer.resblocks if hasattr(visual, "transformer") else visual.trunk.blocks
    hidden = next(m for n, m in blocks[0].named_modules() if "mlp" in n and isinstance(m, nn.Linear))
    convolution = next(module for module in visual.modules() if isinstance(module, nn.Conv2d))
    side, size = convolution.kernel_size[0], visual.image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    return visual, VisionSizes(
        layers=len(blocks) + select_layer + 1,
        width=hidden.in_features,
        mlp=hidden.out_features,
        patches=(height // side) * (width // side),
        extra_tokens=1,
        patch_pixels=3 * side**2,
    )


def _audio_sizes(audio: BEATs, tokens: int) -> AudioSizes:
    config = audio.config
    return AudioSizes(
        layers=config.encoder_layers,
        width=config.encoder_embed_dim,
        mlp=config.encoder_ffn_embed_dim,
        heads=config.encoder_attention_heads,
        embedding=config.embed_dim,
        patch_values=config.input_patch_size**2,
        tokens=tokens,
        kernel=config.conv_pos,
        groups=config.conv_pos_groups,
        gated=config.gru_rel_pos and config.relative_position_embedding,
    )


def _aligner_sizes(aligner: AudioAligner, tokens: int) -> AlignerSizes:
    config = aligner.config
    return AlignerSizes(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        mlp=config.intermediate_size,
        queries=aligner.query_tokens.shape[1],
        cross_every=config.cross_attention_frequency,
        source_tokens=tokens,
        source_width=config.encoder_hidden_size,
    )


def _maps(projector: nn.Module) -> tuple[tuple[int, int], ...]:
    """(in, out) of the linear maps of a projector, in order."""
    maps = [module for module in projector.modules() if isinstance(module, nn.Linear)]
    return tuple((module.in_features, module.out_features) for module in maps)


def _parameters(
    llm: Any, vision: nn.Module, projector: nn.Module, audio: BEATs, aligner: AudioAligner
) -> Any:
    """Parameters by part; quantisation reaches the linear layers of the decoder, not the output head."""
    linear = [module for module in llm.base_model.modules() if isinstance(module, nn.Linear)]
    return Parameters(
        llm=_count(llm),
        llm_linear=sum(module.weight.numel() for module in linear),
        llm_linear_rows=sum(module.out_features for module in linear),
        vision=_count(vision),
        projector=_count(projector),
        audio=_count(audio),
        aligner=_count(aligner),
    )


def _count(module: nn.Module) -> int:
    """Distinct parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
