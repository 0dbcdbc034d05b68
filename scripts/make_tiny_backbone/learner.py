"""The parts of the backbone while they learn."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from model.encoders.aligner import AudioAligner
from model.encoders.beats import BEATs
from model.encoders.projector import build_projector
from scripts.make_tiny_backbone.fast_modules import FastNorm, register_attention
from scripts.make_tiny_backbone.sizes import TinySizes, llama_config


@dataclass
class Learner:
    """Everything that is exported, and what the towers took voices, looks and places for."""

    vision: CLIPVisionModel
    beats: BEATs
    aligner: AudioAligner
    projector: nn.Module
    llm: LlamaForCausalLM
    proxies: tuple[Tensor, Tensor, Tensor]  # of voices (K, 128), looks (K, 128) and places (P, 128)


def new_llm(sizes: TinySizes) -> LlamaForCausalLM:
    """The language model with fast attention and norms."""
    config = llama_config(sizes)
    config._attn_implementation = register_attention()
    llm = LlamaForCausalLM(config)
    depth = (2 * sizes.llm_layers) ** -0.5
    with torch.no_grad():
        for name, weight in llm.named_parameters():
            if weight.ndim == 2:
                scale = weight.shape[1] ** -0.5
                scale *= depth if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                weight.normal_(std=0.5 if "embed_tokens" in name else scale)
    for module in llm.modules():
        if isinstance(module, LlamaRMSNorm):
            module.__class__ = FastNorm
    return llm


def new_projector(sizes: TinySizes) -> nn.Module:
    """The vision projector."""
    return build_projector("mlp2x_gelu", sizes.vision_width, sizes.llm_width)
