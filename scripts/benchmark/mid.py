"""A backbone of middle size with random weights, in the published layout: towers of 12 layers and width 768,
a language model of 30 layers and width 576 (the shapes of SmolLM2-135M), and clips of noise for it.

Speed and memory do not depend on the values of weights; accuracy is measured elsewhere.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from data.samples import Sample, read_samples
from model.encoders.audio import SAMPLE_RATE
from model.encoders.beats import BEATsConfig, save_beats
from model.language_model.backbone import ALIGNER, AUDIO, BASE, PROJECTOR, VISION, BackbonePaths
from model.planning.skeleton import Configs, build_skeleton

TINY = Path(__file__).parents[2] / "checkpoints" / "tiny"
FRAMES, SECONDS = 8, 10.0
BASE_CONFIG: dict[str, Any] = {
    "model_type": "llava_uni_moe",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "mm_projector_type": "mlp2x_gelu",
    "mm_hidden_size": 768,
    "mm_audio_hidden_size": 768,
    "mm_vision_select_layer": -2,
    "audio_projector_type": "linear",
    "audio_window_seconds": SECONDS,
    "audio_qformer": {"num_hidden_layers": 12, "hidden_size": 768},
    "query_tokens_size": 50,
}
VISION_CONFIG: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 336,
    "patch_size": 14,
}
AUDIO_CONFIG: dict[str, Any] = {}  # BEATs' own sizes


def write_mid(folder: Path, seed: int = 0) -> BackbonePaths:
    """Write the three parts of the backbone below `folder`, about 1 GB in 16 bits."""
    torch.manual_seed(seed)
    paths = BackbonePaths(folder / BASE, folder / VISION, folder / AUDIO)
    config, audio = CLIPVisionConfig(**VISION_CONFIG), BEATsConfig(**AUDIO_CONFIG)
    skeleton = build_skeleton(
        Configs(paths.base, BASE_CONFIG, {"model_type": "clip_vision_model", **VISION_CONFIG}, audio, {}),
        device="cpu",
    )
    paths.base.mkdir(parents=True)
    weights = dict(skeleton.llm.state_dict())
    weights |= {PROJECTOR + name: tensor for name, tensor in skeleton.projector.state_dict().items()}
    weights |= {ALIGNER + name: tensor for name, tensor in skeleton.aligner.state_dict().items()}
    save_file(
        {name: tensor.to(torch.bfloat16).clone() for name, tensor in weights.items()},
        paths.base / "model.safetensors",
    )
    (paths.base / "config.json").write_text(json.dumps(BASE_CONFIG))
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(TINY / BASE / name, paths.base / name)
    CLIPVisionModel(config).to(torch.bfloat16).save_pretrained(paths.vision)
    processor = json.loads((TINY / VISION / "preprocessor_config.json").read_text())
    side = {"height": config.image_size, "width": config.image_size}
    processor |= {"crop_size": side, "size": {"shortest_edge": config.image_size}}
    (Path(paths.vision) / "preprocessor_config.json").write_text(json.dumps(processor))
    save_beats(paths.audio, skeleton.audio, torch.float16)
    return paths


def write_questions(folder: Path, clips: int, questions: int = 1, seed: int = 0) -> list[Sample]:
    """Clips of noise, so many questions about each, in the published format; as samples."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for clip in range(clips):
        frames = [f"{clip}_{number}.jpg" for number in range(FRAMES)]
        for name in frames:
            pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((336, 336)).save(folder / name)
        sound = f"{clip}.wav"
        soundfile.write(folder / sound, rng.normal(0, 0.1, round(SECONDS * SAMPLE_RATE)), SAMPLE_RATE)
        for number in range(questions):
            items.append(
                {
                    "id": f"{clip}_{number}",
                    "video": frames,
                    "voice": [sound],
                    "conversations": [
                        {"from": "human", "value": f"<video>\n<audio>\nWhat is it that is heard {number}?"},
                        {"from": "gpt", "value": "a gull"},
                    ],
                }
            )
    file = folder / "questions.json"
    file.write_text(json.dumps(items))
    return read_samples(file)
