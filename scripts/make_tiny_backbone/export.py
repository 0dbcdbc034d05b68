"""Writes the tiny backbone in the layout of the published checkpoints, weights in 16 bit."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionModel

from model.encoders.beats import BEATs, save_beats
from model.language_model.backbone import AUDIO, BASE, VISION
from scripts.make_tiny_backbone.learner import Learner
from scripts.make_tiny_backbone.sizes import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGE_PIXELS,
    SELECT_LAYER,
    WINDOW_SECONDS,
    TinySizes,
    clip_config,
    qformer_config,
)

SHARDS = 2


def whole_vision(vision: CLIPVisionModel, sizes: TinySizes) -> CLIPVisionModel:
    """The trained tower with its unused last layer, all zero: hidden_states[-2] is what the trained layers
    give.
    """
    whole = CLIPVisionModel(clip_config(sizes))
    state = vision.state_dict()
    for name, tensor in whole.state_dict().items():
        state.setdefault(name, torch.zeros_like(tensor))
    whole.load_state_dict(state)
    return whole


def write_vision(vision: CLIPVisionModel, sizes: TinySizes, folder: Path) -> None:
    """CLIP folder: config.json, model.safetensors, preprocessor_config.json."""
    folder.mkdir(parents=True)
    whole = whole_vision(vision, sizes)
    config = {
        **clip_config(sizes).to_diff_dict(),
        "architectures": ["CLIPVisionModel"],
        "torch_dtype": "float16",
    }
    config = {k: v for k, v in config.items() if k not in ("dtype", "transformers_version")}
    _write_json(folder / "config.json", config)
    weights = {
        n: t.detach().half().contiguous() for n, t in whole.state_dict().items() if t.is_floating_point()
    }
    save_file(published_vision_names(weights), folder / "model.safetensors", metadata={"format": "pt"})
    side = {"height": IMAGE_PIXELS, "width": IMAGE_PIXELS}
    _write_json(
        folder / "preprocessor_config.json",
        {
            "crop_size": side,
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": CLIP_MEAN,
            "image_processor_type": "CLIPImageProcessor",
            "image_std": CLIP_STD,
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": IMAGE_PIXELS},
        },
    )


def published_vision_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys as the published CLIP checkpoints have them."""
    prefix = "vision_model."
    return {n if n.startswith(prefix) else prefix + n: t for n, t in weights.items()}


def write_audio(beats: BEATs, sizes: TinySizes, path: Path) -> None:
    """BEATs file."""
    plain = BEATs(beats.config)
    plain.load_state_dict(beats.state_dict())
    save_beats(path, plain, torch.float16)


def base_config(sizes: TinySizes) -> dict[str, object]:
    """`config.json` of the base folder."""
    return {
        "architectures": ["LlavaLlamaForCausalLM"],
        "audio_projector_type": "linear",
        "audio_qformer": {k: v for k, v in asdict(qformer_config(sizes)).items() if k != "dropout"},
        "audio_window_seconds": WINDOW_SECONDS,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "freeze_mm_mlp_adapter": False,
        "hidden_act": "silu",
        "hidden_size": sizes.llm_width,
        "image_aspect_ratio": "square",
        "initializer_range": 0.02,
        "intermediate_size": sizes.llm_mlp,
        "max_position_embeddings": 2048,
        "mm_audio_hidden_size": sizes.audio_width,
        "mm_audio_tower": f"../{AUDIO}",
        "mm_hidden_size": sizes.vision_width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_query_tokens": True,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": SELECT_LAYER,
        "mm_vision_tower": f"../{VISION}",
        "model_type": "llava_uni_moe",
        "num_attention_heads": sizes.llm_heads,
        "num_hidden_layers": sizes.llm_layers,
        "num_key_value_heads": sizes.llm_heads,
        "pad_token_id": 0,
        "pretraining_tp": 1,
        "query_tokens_size": sizes.queries,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_cache": True,
        "use_mm_proj": True,
        "vocab_size": sizes.vocabulary,
    }


def write_base(learner: Learner, sizes: TinySizes, tokenizer: Path, folder: Path) -> None:
    """Base folder: LLM, projector and aligner in shards with an index, config, tokenizer."""
    folder.mkdir(parents=True)
    weights = {}
    parts: tuple[tuple[str, nn.Module], ...] = (
        ("", learner.llm),
        ("model.mm_projector.", learner.projector),
        ("model.mm_audio_aligner.", learner.aligner),
    )
    for prefix, module in parts:
        weights |= {prefix + n: t.detach().half().clone() for n, t in module.state_dict().items()}
    names = sorted(weights)
    total = sum(weights[n].numel() * 2 for n in names)
    shards: list[list[str]] = [[] for _ in range(SHARDS)]
    done = 0
    for name in names:
        shards[min(SHARDS - 1, done * SHARDS // total)].append(name)
        done += weights[name].numel() * 2
    index = {}
    for number, shard in enumerate(shards, 1):
        file = f"pytorch_model-{number:05d}-of-{SHARDS:05d}.bin"
        torch.save({n: weights[n] for n in shard}, folder / file)
        index |= dict.fromkeys(shard, file)
    _write_json(
        folder / "pytorch_model.bin.index.json", {"metadata": {"total_size": total}, "weight_map": index}
    )
    _write_json(folder / "config.json", base_config(sizes))
    generation = {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    _write_json(folder / "generation_config.json", generation)
    for file in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(tokenizer / file, folder / file)


def export(learner: Learner, sizes: TinySizes, tokenizer: Path, folder: Path) -> None:
    """Write all three parts into `folder`, replacing what is there."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_base(learner, sizes, tokenizer, temporary / BASE)
    write_vision(learner.vision, sizes, temporary / VISION)
    write_audio(learner.beats, sizes, temporary / AUDIO)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (BASE, VISION, AUDIO):
        target = folder / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        (temporary / name).rename(target)
    temporary.rmdir()


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
