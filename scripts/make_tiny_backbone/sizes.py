"""Sizes of the tiny backbone: under 10 MB in 16 bit.

A patch of the fbank is 32 frames by 32 mel bins, so that 4.2 s of sound are 52 tokens, and the positional
convolution reaches over all of them: the only place from which BEATs can learn which mel bins a token covers.
"""

from dataclasses import dataclass

from transformers import CLIPVisionConfig, LlamaConfig

from model.encoders.aligner import QFormerConfig
from model.encoders.audio import FRAME_SAMPLES, SAMPLE_RATE, SHIFT_SAMPLES
from model.encoders.beats import BEATsConfig

IMAGE_PIXELS, PATCH_PIXELS = 96, 16
PATCHES = (IMAGE_PIXELS // PATCH_PIXELS) ** 2
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
AUDIO_PATCH, AUDIO_FRAMES = 32, 416
AUDIO_SAMPLES = FRAME_SAMPLES + (AUDIO_FRAMES - 1) * SHIFT_SAMPLES  # 66800
WINDOW_SECONDS = AUDIO_SAMPLES / SAMPLE_RATE  # 4.175
SELECT_LAYER = -2


@dataclass(frozen=True)
class TinySizes:
    """Widths and depths."""

    vision_width: int = 128
    vision_layers: int = 5  # the last one is not used: features come from hidden_states[-2]
    vision_mlp: int = 384
    audio_width: int = 128
    audio_layers: int = 4
    audio_mlp: int = 384
    heads: int = 4  # of both towers and of the Q-Former
    qformer_layers: int = 2
    qformer_mlp: int = 192
    queries: int = 8
    llm_width: int = 192
    llm_layers: int = 7
    llm_mlp: int = 288
    llm_heads: int = 6
    vocabulary: int = 1024


def clip_config(sizes: TinySizes) -> CLIPVisionConfig:
    """Vision tower."""
    return CLIPVisionConfig(
        hidden_size=sizes.vision_width,
        intermediate_size=sizes.vision_mlp,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.heads,
        image_size=IMAGE_PIXELS,
        patch_size=PATCH_PIXELS,
        projection_dim=sizes.vision_width,
    )


def beats_config(sizes: TinySizes) -> BEATsConfig:
    """Audio tower."""
    tokens = (AUDIO_FRAMES // AUDIO_PATCH) * (128 // AUDIO_PATCH)
    return BEATsConfig(
        encoder_layers=sizes.audio_layers,
        encoder_embed_dim=sizes.audio_width,
        encoder_ffn_embed_dim=sizes.audio_mlp,
        encoder_attention_heads=sizes.heads,
        embed_dim=sizes.audio_width,
        input_patch_size=AUDIO_PATCH,
        conv_bias=True,
        conv_pos=2 * tokens,
        conv_pos_groups=sizes.audio_width,
        num_buckets=320,
        max_distance=800,
    )


def qformer_config(sizes: TinySizes) -> QFormerConfig:
    """Audio aligner."""
    return QFormerConfig(
        hidden_size=sizes.audio_width,
        num_hidden_layers=sizes.qformer_layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.qformer_mlp,
        cross_attention_frequency=1,
        encoder_hidden_size=sizes.audio_width,
        dropout=0.0,
    )


def llama_config(sizes: TinySizes) -> LlamaConfig:
    """Language model."""
    return LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.llm_width,
        intermediate_size=sizes.llm_mlp,
        num_hidden_layers=sizes.llm_layers,
        num_attention_heads=sizes.llm_heads,
        num_key_value_heads=sizes.llm_heads,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
