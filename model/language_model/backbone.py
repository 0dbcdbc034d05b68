"""Load the frozen backbone: LLM, tokenizer, vision and audio encoders. The only file that knows LLaVA names.

Published layout (LLaVA, H. Liu et al., arXiv 2304.08485): a folder with `config.json` (`model_type` llava_*),
weights of the LLM beside those of projector and audio aligner in shards, and a SentencePiece
`tokenizer.model`; a CLIP folder; a BEATs file. The tiny backbone has the same layout, so a path is all that
changes. Two optional keys of `config.json` say what published files leave to defaults: `audio_qformer`
(sizes, see QFormerConfig) and `audio_window_seconds`.

Aligned layout (alignment.py writes it): a folder with `projectors.safetensors`, the tensors of projector and
audio aligner under their published names, and a `config.json` with the same keys, `model_type` aligned_llm,
the folder of an LLM of transformers (`llm`, see families.py), the towers, and the identity of all weights.
Paths are absolute or relative to the folder.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    LlamaConfig,
    LlamaTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)

from model.encoders.aligner import AudioAligner, QFormerConfig
from model.encoders.audio import AudioTower
from model.encoders.beats import load_beats
from model.encoders.features import MediaEncoder
from model.encoders.projector import build_projector
from model.encoders.vision import OPEN_CLIP, VisionTower, quiet_loading
from model.language_model.families import read_config, read_llm, read_tokenizer
from model.language_model.loading import Loading
from model.language_model.prefix import PrefixBounds
from model.tensor_files import digest_tensors, read_json, read_tensors, read_weights

logger = logging.getLogger(__name__)

BASE, VISION, AUDIO = "AVQACL-MoE-base", "clip-vit-large-patch14-336", "BEATs_iter3_plus_AS2M.pt"
TINY = "tiny"
ALIGNED, PROJECTORS = "aligned_llm", "projectors.safetensors"
PROJECTOR, ALIGNER = "model.mm_projector.", "model.mm_audio_aligner."
TOWERS = ("model.vision_tower.", "model.audio_tower.")  # copies of the towers; the towers' own files are used
ROTARY = ".rotary_emb.inv_freq"  # stored rounded to fp16; recomputed
ROPE_THETA = 10000.0  # the published system fixes it, whatever config.json says
LLAMA_KEYS = (  # what a LLaVA config.json shares with LlamaConfig
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "tie_word_embeddings",
    "vocab_size",
)


@dataclass(frozen=True)
class BackbonePaths:
    """Where the three parts of a backbone are."""

    base: Path  # folder in the published or aligned layout
    vision: Path | str  # CLIP or SigLIP folder, or `open_clip:...` (see VisionTower.load)
    audio: Path  # BEATs file


@dataclass
class Backbone:
    """A loaded, frozen backbone in eval mode."""

    llm: PreTrainedModel  # causal LM, unchanged
    tokenizer: Any  # its transformers tokenizer
    encoder: MediaEncoder
    identity: str  # SHA-256 of LLM, projector and aligner; experts and anchors carry it
    config: dict[str, Any]  # config.json as stored
    paths: BackbonePaths
    loading: Loading = Loading()  # number format and attention kernel of the LLM


def find_checkpoints(root: str | Path) -> tuple[BackbonePaths, str]:
    """The backbone under a checkpoint folder: "published" if its three paths exist, "tiny" if none does or
    the folder is the tiny one itself; or the folder itself in the aligned layout ("published": its defaults).

    Raises: ValueError listing what is missing if only some of the published paths exist, or the tiny ones
    lack too.
    """
    root = Path(root)
    if (aligned := aligned_paths(root)) is not None:
        return aligned, "published"
    for folder, kind in ((root, "published"), (root / TINY, "tiny")):
        paths = [folder / name for name in (BASE, VISION, AUDIO)]
        missing = [str(path) for path in paths if not path.exists()]
        if not missing:
            return BackbonePaths(*paths), "tiny" if folder.resolve().name == TINY else kind
        if len(missing) < len(paths) or kind == "tiny":
            found = [str(path) for path in paths if path.exists()]
            raise ValueError(
                f"{root}: checkpoints incomplete; missing {', '.join(missing)}; "
                f"found {', '.join(found) or 'none'}. "
                "Complete them, remove them to use the tiny backbone, or give each path explicitly."
            )
    raise AssertionError("unreachable")


def aligned_paths(folder: Path) -> BackbonePaths | None:
    """The three parts of a folder in the aligned layout; None for any other folder.

    Raises: ValueError for a plain LLM, which cannot see or hear before it is aligned.
    """
    if not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    if config.get("model_type") != ALIGNED:
        _check_layout(folder, config)
        return None
    vision, audio = config["mm_vision_tower"], config["mm_audio_tower"]
    return BackbonePaths(folder, vision if vision.startswith(OPEN_CLIP) else folder / vision, folder / audio)


def load_backbone(
    paths: BackbonePaths,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    qformer: Mapping[str, Any] | None = None,
    bits: int = 16,
    attn_implementation: str | None = None,
    towers: torch.dtype = torch.float32,
    prefixes: PrefixBounds | None = None,
    shapes_only: bool = False,
) -> Backbone:
    """Load everything once, strictly: each stored tensor is used or named as ignorable, each needed one is
    there.

    Args:
        dtype, bits, attn_implementation: of the LLM, see Loading. towers: of the encoders' products.
        prefixes: bounds of what is kept, for `AnchorLM`.
        qformer: Q-Former sizes where config.json has no `audio_qformer`; without both the published sizes
        hold.
        shapes_only: all is checked and identified, but the LLM's parameters stay on the meta device: seconds
        and the memory of the towers, whatever its size.

    Raises: ValueError naming file or folder and what is missing, unexpected, unreadable or of the wrong size,
    or what this machine lacks for `bits` or `attn_implementation`.
    """
    loading, device = (
        Loading(dtype, bits, attn_implementation, towers, prefixes or PrefixBounds()),
        torch.device(device),
    )
    loading.check(device)
    base = Path(paths.base)
    config = read_json(base / "config.json")
    _check_layout(base, config)
    sizes, weights, tokenizer = _read_base(base, config)
    llm_weights, projector_weights, aligner_weights, identity = split_weights(base, weights)
    if config.get("identity", identity) != identity:
        raise ValueError(
            f"{base}: made for weights {config['identity'][:16]}, found {identity[:16]}; put the LLM "
            f"{config.get('llm')} back as it was, or align again"
        )
    encoder = load_encoder(paths, config, projector_weights, aligner_weights, qformer)
    encoder.precision = towers
    llm = load_llm(base, sizes, llm_weights, loading, device, shapes_only)
    return Backbone(llm, tokenizer, encoder.to(device), identity, config, paths, loading)


def is_base(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a base folder."""
    kind = str(config.get("model_type"))
    return kind == ALIGNED or kind.startswith("llava")


def _check_layout(base: Path, config: Mapping[str, Any]) -> None:
    if not is_base(config):
        raise ValueError(
            f"{base / 'config.json'}: model_type is {config.get('model_type')!r}, expected llava_* or "
            f"{ALIGNED}, a language model with projector and audio aligner; train these for a plain LLM: "
            f"python train/train_base.py --model_name_or_path {base} --data_path FILE.json --output_dir DIR"
        )


def _read_base(base: Path, config: Mapping[str, Any]) -> tuple[PretrainedConfig, dict[str, Tensor], Any]:
    """Configuration of the LLM; weights of LLM, projector and aligner; tokenizer."""
    if config["model_type"] == ALIGNED:
        files = read_llm(base / config["llm"])
        return files.config, files.weights | read_tensors(base / PROJECTORS), files.tokenizer
    return llm_config(base, config), read_weights(base), load_tokenizer(base)


def split_weights(
    base: Path, weights: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], str]:
    """LLM weights, projector and aligner weights without their prefixes, and the identity of all of them."""
    copies = [name for name in weights if name.startswith(TOWERS)]
    if copies:
        logger.info(
            "%s: %d tower tensors ignored, the towers are loaded from their own files", base, len(copies)
        )
    weights = {k: v for k, v in weights.items() if not k.startswith(TOWERS) and not k.endswith(ROTARY)}
    identity = digest_tensors(weights)
    parts = []
    for prefix in (PROJECTOR, ALIGNER):
        parts.append(
            {k.removeprefix(prefix): weights.pop(k).float() for k in list(weights) if k.startswith(prefix)}
        )
        if not parts[-1]:
            raise ValueError(
                f"{base}: holds no tensor {prefix}*; a backbone needs a trained projector and audio aligner"
            )
    return weights, parts[0], parts[1], identity


def load_encoder(
    paths: BackbonePaths,
    config: Mapping[str, Any],
    projector_weights: dict[str, Tensor],
    aligner_weights: dict[str, Tensor],
    qformer: Mapping[str, Any] | None,
) -> MediaEncoder:
    """Towers, projector and aligner; ValueError where their sizes do not fit each other or the configuration.

    Args:
        config: `config.json` of the base. qformer: as of `load_backbone`.
        projector_weights, aligner_weights: without their prefixes.
    """
    source = Path(paths.base) / "config.json"
    missing = [k for k in ("hidden_size", "mm_projector_type", "query_tokens_size") if k not in config]
    if missing:
        raise ValueError(f"{source}: lacks {missing}")
    vision = VisionTower.load(paths.vision, config.get("mm_vision_select_layer", -2))
    audio = AudioTower(load_beats(paths.audio), config.get("audio_window_seconds", 30.0))
    for key, path, tower in (
        ("mm_hidden_size", paths.vision, vision),
        ("mm_audio_hidden_size", paths.audio, audio),
    ):
        if config.get(key, tower.width) != tower.width:
            raise ValueError(
                f"{path}: features are {tower.width} wide, but {source} was made for {key} {config[key]}"
            )
    sizes = QFormerConfig.from_dict(config.get("audio_qformer", qformer or {}))
    if sizes.encoder_hidden_size != audio.width:
        raise ValueError(
            f"{paths.audio}: features are {audio.width} wide, but the Q-Former of {source} reads "
            f"{sizes.encoder_hidden_size}; set audio_qformer there (see QFormerConfig)"
        )
    with torch.device("meta"):
        projector = build_projector(config["mm_projector_type"], vision.width, config["hidden_size"])
    kind = config.get("audio_projector_type", "linear")
    aligner = AudioAligner(sizes, config["query_tokens_size"], config["hidden_size"], kind)
    _load_part(projector, projector_weights, f"{paths.base}: {PROJECTOR}*")
    _load_part(aligner, aligner_weights, f"{paths.base}: {ALIGNER}*")
    return MediaEncoder(vision, projector, audio, aligner)


def _load_part(module: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    try:
        module.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{name}: weights do not fit the sizes in use: {error}") from error


def llm_config(base: Path, config: Mapping[str, Any]) -> PretrainedConfig:
    """Configuration of the LLM of a base folder, from its `config.json`; ValueError for what is not
    supported."""
    if config.get("model_type") == ALIGNED:
        return read_config(base / config["llm"])
    if config.get("rope_scaling") is not None:
        raise ValueError(f"{base / 'config.json'}: rope_scaling {config['rope_scaling']} is not supported")
    if config.get("rope_theta", ROPE_THETA) != ROPE_THETA:
        logger.warning("%s: rope_theta %s ignored, %s holds", base, config["rope_theta"], ROPE_THETA)
    sizes = {key: config[key] for key in LLAMA_KEYS if key in config}
    return LlamaConfig(**sizes, rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA})


def load_llm(
    base: Path,
    config: PretrainedConfig,
    weights: dict[str, Tensor],
    loading: Loading,
    device: torch.device,
    shapes_only: bool = False,
) -> PreTrainedModel:
    """The causal LM of a configuration, frozen; every weight is used and every one is there."""
    arguments = loading.arguments(device)
    if shapes_only:
        arguments["device_map"] = "meta"
    try:
        with quiet_loading():
            llm, info = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
                None,
                config=config,
                state_dict=weights,
                **arguments,
                ignore_mismatched_sizes=True,  # reported and refused below
                output_loading_info=True,
            )
    except (RuntimeError, ImportError) as error:
        raise ValueError(f"{base}: the LLM cannot be loaded: {error}") from error
    if any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise ValueError(
            f"{base}: weights do not fit config.json; missing {sorted(info['missing_keys'])[:5]}, "
            f"unexpected {sorted(info['unexpected_keys'])[:5]}, "
            f"of other shape {sorted(info['mismatched_keys'])[:5]}"
        )
    if not (shapes_only or loading.quantised):  # quantised layers are put in place while loading
        llm = llm.to(device)
    return llm.requires_grad_(False).eval()


def load_tokenizer(base: Path) -> Any:
    """The tokenizer of a base folder; ValueError where there is none."""
    config = read_json(base / "config.json")
    if config.get("model_type") == ALIGNED:
        return read_tokenizer(base / config["llm"])
    if not (base / "tokenizer.model").is_file():
        raise ValueError(f"{base / 'tokenizer.model'}: no such file; expected a SentencePiece model")
    try:
        return LlamaTokenizer.from_pretrained(base, local_files_only=True)
    except Exception as error:  # the kinds vary with what is damaged
        raise ValueError(
            f"{base / 'tokenizer.model'}: no readable SentencePiece model "
            f"({str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__})"
        ) from error
