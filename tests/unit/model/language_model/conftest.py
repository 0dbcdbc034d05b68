"""A small random backbone in the published layout, and a small LM with experts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from model.encoders.aligner import AudioAligner, QFormerConfig
from model.encoders.beats import BEATs, BEATsConfig, save_beats
from model.encoders.projector import build_projector
from model.language_model.anchor_lm import AnchorLM
from model.moe.experts import ExpertBank, ExpertConfig

WIDTH, VOCAB, QUERIES = 16, 320, 3
QFORMER = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "encoder_hidden_size": 12,
}
CONFIG: dict[str, Any] = {
    "model_type": "llava_uni_moe",
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "mm_projector_type": "mlp2x_gelu",
    "mm_hidden_size": 8,
    "mm_audio_hidden_size": 12,
    "mm_vision_select_layer": -2,
    "audio_projector_type": "linear",
    "query_tokens_size": QUERIES,
    "audio_window_seconds": 0.5,
    "audio_qformer": QFORMER,
}


def base_tensors(dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """All tensors of a base folder under their published names, the stale rotary buffers included."""
    torch.manual_seed(0)
    llama = {k: v for k, v in CONFIG.items() if not k.startswith(("model_", "mm_", "audio_", "query_"))}
    llm = LlamaForCausalLM(LlamaConfig(**llama))
    named = dict(llm.state_dict())
    projector = build_projector("mlp2x_gelu", 8, WIDTH)
    aligner = AudioAligner(QFormerConfig.from_dict(QFORMER), QUERIES, WIDTH)
    named |= {f"model.mm_projector.{k}": v for k, v in projector.state_dict().items()}
    named |= {f"model.mm_audio_aligner.{k}": v for k, v in aligner.state_dict().items()}
    named |= {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.full((4,), 0.7) for i in range(3)}
    return {k: v.detach().to(dtype) for k, v in named.items()}


def write_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Two .bin files with an index."""
    names = sorted(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in shards.items():
        torch.save({name: tensors[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def write_backbone(root: Path) -> Path:
    """base/, clip/ and beats.pt under `root`."""
    base, clip = root / "base", root / "clip"
    base.mkdir(parents=True)
    (base / "config.json").write_text(json.dumps(CONFIG))
    write_shards(base, base_tensors())
    text = root / "text.txt"
    text.write_text("USER: What is heard in the video? ASSISTANT: a dog is barking on the street\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(base / "tokenizer"),
        vocab_size=VOCAB,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    torch.manual_seed(1)
    vision = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    CLIPVisionModel(vision).save_pretrained(clip)
    preprocess = {"size": 16, "crop_size": 16, "do_center_crop": True, "resample": 3}
    preprocess |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (clip / "preprocessor_config.json").write_text(json.dumps(preprocess))
    beats = BEATsConfig(
        encoder_layers=1,
        encoder_embed_dim=12,
        encoder_ffn_embed_dim=8,
        encoder_attention_heads=2,
        embed_dim=8,
        conv_pos=4,
        conv_pos_groups=2,
    )
    save_beats(root / "beats.pt", BEATs(beats))
    return root


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only: tests that change files copy it."""
    return write_backbone(tmp_path_factory.mktemp("backbone"))


MakeLM = Callable[..., AnchorLM]


@pytest.fixture(scope="session")
def make_lm() -> MakeLM:
    """Makes a random LM with two experts (ids 3 and 7) that differ from the backbone and from each other."""

    def make(attention: str = "sdpa", kind: str = "lora") -> AnchorLM:
        torch.manual_seed(0)
        sizes = {
            k: CONFIG[k] for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        }
        config = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1, initializer_range=0.3)
        llm = LlamaForCausalLM._from_config(config, attn_implementation=attention).eval()
        bank = ExpertBank(llm, ExpertConfig(kind=kind, rank=2, alpha=4.0))
        for task in (3, 7):
            bank.add(task, generator=torch.Generator().manual_seed(task))
            for parameter in bank.parameters_of(task).values():
                nn.init.normal_(parameter, std=0.4)
        llm.requires_grad_(False)
        return AnchorLM(llm, bank)

    return make


@pytest.fixture(scope="session")
def lm(make_lm: MakeLM) -> AnchorLM:
    return make_lm()
