"""What a file or folder of a checkpoint folder is, by its content, whatever its name.

Only configurations, keys and shapes are looked at; weights stay on disk and no pickle runs code.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from model.file_faults import byte_fault, is_partial
from model.language_model.backbone import AUDIO, BASE, VISION, is_base
from model.moe.expert_sites import KEY
from model.moe.files import read_safetensors
from model.tensor_files import INDEX_FILES, SINGLE_FILES, read_json, read_plain

Kind = Literal["base", "vision", "audio", "experts", "expert", "anchor", "checkpoints", "partial", "other"]

EXPERTS = "AVQACL-MoE-experts"
NAMES: dict[Kind, str] = {"base": BASE, "vision": VISION, "audio": AUDIO, "experts": EXPERTS}
WANTED: dict[Kind, str] = {
    "base": "a base LLM folder with projector and audio aligner",
    "vision": "a CLIP folder",
    "audio": "a BEATs encoder file",
    "experts": "a folder of expert_task_K.pt and anchor_task_K.pt",
}
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
CONTAINERS = (".pt", ".safetensors")  # of experts and anchors
MODALITIES = {"text", "video", "audio", "image"}
_EXPERT_KEY = re.compile(KEY + r"(\.lora_[AB])?\.weight$")


@dataclass(frozen=True)
class Recognised:
    """What something is."""

    kind: Kind
    what: str  # in words, for messages


def recognise(path: Path) -> Recognised:
    """Look at one entry of a checkpoint folder; never raises for what it finds there."""
    if is_partial(path):
        return Recognised("partial", "left half-written by an interrupted download, copy or run")
    return _folder(path) if path.is_dir() else _file(path)


def _folder(path: Path) -> Recognised:
    if (path / "config.json").exists():
        return _model_folder(path)
    kept = [f"{inner}*_task_*{suffix}" for inner in ("", "experts/", "anchors/") for suffix in CONTAINERS]
    if any(any(path.glob(pattern)) for pattern in kept):
        return Recognised("experts", "experts and anchors")
    if any((path / name).exists() for name in (BASE, VISION, AUDIO)):
        return Recognised("checkpoints", "a checkpoint folder of its own")
    if not any(path.iterdir()):
        return Recognised("other", "an empty folder")
    if any((path / name).exists() for name in INDEX_FILES + SINGLE_FILES):
        return Recognised("other", "weights without their config.json")
    return Recognised("other", "a folder with neither config.json nor experts")


def _model_folder(path: Path) -> Recognised:
    file = path / "config.json"
    fault = byte_fault(file)
    if fault is not None:
        return Recognised("other", f"a folder whose config.json cannot be used: {fault}")
    try:
        config = read_json(file)
    except ValueError as error:
        return Recognised("other", f"a folder whose config.json cannot be used: {error}")
    if is_base(config):
        sizes = "{} x {}".format(*(config.get(key, "?") for key in ("num_hidden_layers", "hidden_size")))
        return Recognised("base", f"a base LLM folder ({sizes})")
    kind = config.get("model_type")
    if kind in ("clip", "clip_vision_model"):
        vision = config.get("vision_config") or config
        sizes = "{} px, patch {}".format(*(vision.get(key, "?") for key in ("image_size", "patch_size")))
        return Recognised("vision", f"a CLIP folder ({sizes})")
    return Recognised("other", f"a model of type {kind!r}, without the projector and aligner of a base")


def _file(path: Path) -> Recognised:
    if path.suffix not in WEIGHT_SUFFIXES:
        return Recognised("other", "not a weight file")
    safe = path.suffix == ".safetensors"
    if safe and (fault := byte_fault(path)) is not None:
        return Recognised("other", fault)
    try:
        content = read_safetensors(path) if safe else read_plain(path)
    except ValueError as error:
        return Recognised("other", str(error).removeprefix(f"{path}: "))
    if not isinstance(content, Mapping) or not content:
        return Recognised("other", f"a file that holds a {type(content).__name__}")
    if {"cfg", "model"} <= set(content):
        return _beats(content)
    keys = [str(key) for key in content if key != "expert"]
    if keys and all(_EXPERT_KEY.match(key) for key in keys):
        header = content.get("expert")
        task = header.get("task_id") if isinstance(header, dict) else None
        return Recognised("expert", "an expert" if task is None else f"the expert of task {task}")
    if set(keys) <= MODALITIES and all(isinstance(value, Tensor) for value in content.values()):
        return Recognised("anchor", f"an anchor ({', '.join(sorted(keys))})")
    return Recognised("other", f"a tensor file with the keys {', '.join(sorted(keys)[:3])}, ...")


def _beats(content: Mapping[str, Any]) -> Recognised:
    """BEATs files are encoders, fine-tuned encoders with a classifier, or tokenizers."""
    cfg, state = content["cfg"], content["model"]
    if not isinstance(cfg, dict) or not isinstance(state, dict):
        return Recognised("other", "a file of BEATs layout without sizes or weights")
    if any("quantize" in key for key in state):
        return Recognised("other", "a BEATs tokenizer, not the encoder; get BEATs_iter3_plus_AS2M.pt")
    sizes = "{} x {}".format(*(cfg.get(key, "?") for key in ("encoder_layers", "encoder_embed_dim")))
    if cfg.get("finetuned_model"):
        return Recognised("audio", f"fine-tuned BEATs with a classifier ({sizes})")
    return Recognised("audio", f"pre-trained BEATs ({sizes})")
