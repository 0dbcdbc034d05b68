"""LoRA experts as adapter folders of PEFT, and back; needs no PEFT.

    adapter_config.json          rank, alpha, layers, projections in PEFT's words
    adapter_model.safetensors    base_model.model.model.layers.{i}.{block}.{projection}.lora_{A,B}.weight;
                                 the expert's own header stands in its metadata

PEFT adds alpha / R B A x on every token: an expert of scope `all` gives the same logits there, one of another
scope does not (see docs/serving.md). PEFT: https://github.com/huggingface/peft
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.moe.expert_files import (
    ExpertFile,
    ExpertHeader,
    check_finite,
    header_entry,
    parse_header,
)
from model.moe.expert_sites import KEY, in_usual_order, site_name
from model.moe.files import atomic_write, read_tensor_file, write_tensor_file
from model.moe.json_text import parse_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
_KEY = re.compile(KEY + r"\.lora_(?P<half>[AB])\.weight")

# What an adapter's settings may be besides empty: they say where it came from or how it was trained, or its
# tensors say it again. Everything else changes the forward pass, or may in a later version of PEFT.
_HARMLESS = {
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
}
# Other ways to start (PiSSA, OLoRA, LoftQ, ...) change the frozen weights too.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


def write_adapter(
    folder: str | Path,
    header: ExpertHeader,
    tensors: Mapping[str, Tensor],
    base_model: str,
    pad_to: int | None = None,
) -> None:
    """Write a LoRA expert as an adapter folder.

    Args:
        base_model: `base_model_name_or_path`: the plain LLM that the adapter goes on.
        pad_to: number of layers of the LLM: those without expert get zeros, for servers that leave out a
            projection unless every layer has it (LoRAX); None writes the expert's own layers only.

    Raises:
        ValueError: a full-MLP expert, unexpected keys, or a value that is not finite.
        OSError: not writable, or the disk is full.
    """
    folder = Path(folder)
    check_low_rank(header)
    assert header.alpha is not None
    check_finite(tensors, folder)
    layers, projections = _sites(tensors, folder)
    covered = layers if pad_to is None else tuple(range(pad_to))
    if not set(layers) <= set(covered):
        raise ValueError(
            f"{folder}: the expert has layers {layers}, the LLM {pad_to} layers; give its own LLM"
        )
    content: dict[str, object] = {PREFIX + key: tensor.detach() for key, tensor in tensors.items()}
    for number in sorted(set(covered) - set(layers)):
        for key, tensor in tensors.items():
            if f"layers.{layers[0]}." in key:
                key = key.replace(f"layers.{layers[0]}.", f"layers.{number}.")
                content[PREFIX + key] = torch.zeros_like(tensor)
    content["expert"] = {**header_entry(header), "layers": list(layers)}
    if header.tokens != "all":
        content["warning"] = scope_warning(header.tokens)
    write_tensor_file(folder / WEIGHTS, content)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": header.rank,
        "lora_alpha": int(header.alpha) if float(header.alpha).is_integer() else header.alpha,
        "target_modules": list(projections),
        "layers_to_transform": list(covered),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }
    with atomic_write(folder / CONFIG) as file:
        file.write((json.dumps(config, indent=2) + "\n").encode())


def check_low_rank(header: ExpertHeader) -> None:
    """Raise a ValueError for an expert that no adapter can hold."""
    if header.kind != "lora":
        raise ValueError(
            f"expert of task {header.task_id}: a full-MLP expert is no adapter: its change of the weights "
            "has full rank, and PEFT's adapters are low-rank; train with --expert_kind lora, or share it as "
            "expert_task_K.safetensors (scripts/convert_tensors.py)"
        )


def scope_warning(tokens: str) -> str:
    """What a reader of an adapter with another scope than `all` must know."""
    part = {"text": "the text after the last medium", "answer": "the last prompt token and the answer"}[
        tokens
    ]
    return (
        f"trained to act on {part} only; a forward pass that applies them to every token, as those of PEFT "
        "and of multi-LoRA servers do, gives other logits than they were trained and measured with"
    )


def read_adapter(folder: str | Path) -> tuple[ExpertFile, dict[str, Tensor]]:
    """What the expert in an adapter folder is, and its tensors by expert file key.

    An adapter of another maker has no header: its task and base are None, its scope is `all`. rsLoRA, scaled
    by alpha / sqrt(R), becomes the alpha that gives the same scale here.

    Raises:
        ValueError: files missing or damaged, a setting that this bank cannot compute (DoRA, biases, rank
            patterns, ...), target modules other than the MLP's linear layers, an incomplete set of tensors.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    content = read_tensor_file(folder / WEIGHTS)
    entry, _ = content.pop("expert", None), content.pop("warning", None)
    if not all(key.startswith(PREFIX) and isinstance(value, Tensor) for key, value in content.items()):
        wrong = next(k for k, v in content.items() if not (k.startswith(PREFIX) and isinstance(v, Tensor)))
        raise ValueError(f"{folder / WEIGHTS}: {wrong!r} is no tensor {PREFIX}...; is it an adapter of PEFT?")
    tensors: dict[str, Tensor] = {key.removeprefix(PREFIX): value for key, value in content.items()}  # type: ignore[misc]
    check_finite(tensors, folder)
    _, projections = _sites(tensors, folder)
    for key, tensor in tensors.items():
        rank = tensor.shape[0 if ".lora_A." in key else 1] if tensor.ndim == 2 else None
        if rank != config["r"]:
            raise ValueError(
                f"{folder}: {key} has shape {tuple(tensor.shape)}, expected rank {config['r']} as in {CONFIG}"
            )
    named = config["target_modules"]
    if isinstance(named, list) and {name.rpartition(".")[2] for name in named} != set(projections):
        raise ValueError(
            f"{folder}: {CONFIG} names the modules {sorted(named)}, the tensors are of {list(projections)}"
        )
    stretch = math.sqrt(config["r"]) if config.get("use_rslora") else 1
    header = ExpertHeader("lora", config["r"], float(config["lora_alpha"] * stretch), None, None)
    if entry is not None:
        header = _own_header(entry, header, tensors, folder)
    return ExpertFile(header, *_sites(tensors, folder)), tensors


def _own_header(entry: object, found: ExpertHeader, tensors: dict[str, Tensor], folder: Path) -> ExpertHeader:
    """The header that `write_adapter` put there; takes the padding out of `tensors`."""
    if not isinstance(entry, dict) or not isinstance(entry.get("layers"), list):
        raise ValueError(f"{folder / WEIGHTS}: the metadata's 'expert' names no layers; export it again")
    header = parse_header({k: v for k, v in entry.items() if k != "layers"}, folder / WEIGHTS)
    if (header.kind, header.rank, header.alpha) != (found.kind, found.rank, found.alpha):
        raise ValueError(
            f"{folder}: the expert's own header says {asdict(header)}, {CONFIG} says rank {found.rank} and "
            f"alpha {found.alpha}; one of them was edited, export it again"
        )
    for key in list(tensors):
        match = _KEY.fullmatch(key)
        assert match is not None
        if int(match["layer"]) not in entry["layers"]:
            padding = tensors.pop(key)
            if padding.any():
                raise ValueError(f"{folder}: {key} is padding but not zero; export it again")
    return header


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; give the folder of one adapter") from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        got = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise ValueError(f"{path}: peft_type is {got!r}, expected 'LORA'; other adapters are no experts here")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float) or not alpha > 0:
        raise ValueError(f"{path}: r is {rank!r} and lora_alpha {alpha!r}, expected positive numbers")
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        raise ValueError(
            f"{path}: init_lora_weights {config['init_lora_weights']!r} changed the base's weights too; "
            "convert the adapter to plain LoRA with PEFT first"
        )
    for key, value in sorted(config.items()):
        if key not in _HARMLESS | {"init_lora_weights"} and value not in (None, False, 0, "", "none", {}, []):
            raise ValueError(
                f"{path}: {key} is {value!r}; an expert is W x + alpha / r B A x and nothing else, so this "
                "adapter cannot be one"
            )
    return {"target_modules": None, **config}


def _sites(tensors: Mapping[str, Tensor], folder: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Layers and projections of LoRA tensors by expert file key; every layer must have all of them."""
    found: set[tuple[int, str, str]] = set()
    for key in tensors:
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(
                f"{folder}: {key!r}: experts live on the linear layers of MLPs and attention, "
                "expected model.layers.N.mlp.NAME.lora_A.weight or lora_B, or self_attn; train with these "
                "target modules only"
            )
        found.add((int(match["layer"]), match["projection"], match["half"]))
    layers = tuple(sorted({number for number, _, _ in found}))
    projections = in_usual_order({name for _, name, _ in found})
    missing = [
        f"{site_name(n, p)}.lora_{h}"
        for n in layers
        for p in projections
        for h in "AB"
        if (n, p, h) not in found
    ]
    if missing or not found:
        raise ValueError(
            f"{folder}: {len(missing)} tensors missing {missing[:3]}; every layer needs A and B of "
            f"{', '.join(projections) or 'some projections'}"
        )
    return layers, projections
