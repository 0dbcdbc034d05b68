"""The sizes that FLOPs and memory follow from.

A record per part of the backbone, and what is asked of it. Formulas are in flops.py and memory.py, the
records are filled from real or meta modules by skeleton.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model.moe.expert_sites import ATTENTION, ExpertConfig, GatedConfig


@dataclass(frozen=True)
class LLMSizes:
    """A decoder with gated MLPs (gate_proj, up_proj, down_proj) and grouped-query attention."""

    layers: int
    width: int  # of the hidden states
    heads: int
    kv_heads: int  # heads of keys and values
    head_width: int
    mlp: int  # hidden width of an MLP
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> LLMSizes:
        """From a transformers configuration."""
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
            mlp=config.intermediate_size,
            vocabulary=config.vocab_size,
        )

    @property
    def attention(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head_width

    @property
    def keys(self) -> int:
        """Width of all key heads together; that of the values too."""
        return self.kv_heads * self.head_width

    def projection(self, name: str) -> tuple[int, int]:
        """Widths (in, out) of a linear layer of the MLP or the attention."""
        if name == "o_proj":
            return self.attention, self.width
        if name in ATTENTION:
            return self.width, self.attention if name == "q_proj" else self.keys
        return (self.mlp, self.width) if name == "down_proj" else (self.width, self.mlp)


@dataclass(frozen=True)
class VisionSizes:
    """A vision transformer as far as it is run."""

    layers: int  # up to the selected one
    width: int
    mlp: int
    patches: int
    extra_tokens: int  # class token
    patch_pixels: int  # values in one patch, 3 * side ** 2


@dataclass(frozen=True)
class AudioSizes:
    """BEATs over one chunk."""

    layers: int
    width: int
    mlp: int
    heads: int
    embedding: int  # width of the patch embedding
    patch_values: int  # values in one patch, side ** 2
    tokens: int  # of a chunk
    kernel: int  # of the positional convolution
    groups: int  # of the positional convolution
    gated: bool  # whether each query scales the position bias


@dataclass(frozen=True)
class AlignerSizes:
    """Q-Former over the audio tokens of one chunk, and its projector."""

    layers: int
    width: int
    mlp: int
    queries: int
    cross_every: int  # cross-attention in layers 0, n, 2 n, ...
    source_tokens: int  # N
    source_width: int


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters, counted on the modules."""

    llm: int
    llm_linear: int  # of these in linear layers that quantisation reaches
    llm_linear_rows: int  # output rows of these layers
    vision: int
    projector: int
    audio: int
    aligner: int

    @property
    def encoders(self) -> int:
        """All but the LLM; they run in float32."""
        return self.vision + self.projector + self.audio + self.aligner


@dataclass(frozen=True)
class BackboneSizes:
    """A whole backbone."""

    llm: LLMSizes
    vision: VisionSizes
    audio: AudioSizes
    aligner: AlignerSizes
    vision_projector: tuple[tuple[int, int], ...]  # (in, out) of each linear map, from tower to LLM
    audio_projector: tuple[tuple[int, int], ...]
    parameters: Parameters


@dataclass(frozen=True)
class PromptTokens:
    """Length of a prompt with its answer, in tokens after splicing."""

    before: int  # up to and with the last medium
    after: int  # from there to the answer
    answer: int  # answer and end token: the positions of the loss

    @property
    def prompt(self) -> int:
        """Without the answer."""
        return self.before + self.after

    def scope(self, tokens: str) -> tuple[int, int]:
        """Kept prefix and tokens that are trained on, for the expert scopes all, text and answer."""
        if tokens == "all" or (tokens == "text" and not self.before):
            return 0, self.prompt + self.answer
        if tokens == "text":
            return self.before, self.after + self.answer
        return self.prompt - 1, 1 + self.answer


def expert_layers(llm: LLMSizes, expert: ExpertConfig) -> list[int]:
    """Numbers of the layers that carry experts."""
    return [layer for layer in range(llm.layers) if expert.takes(layer)]


def expert_parameters(llm: LLMSizes, expert: ExpertConfig) -> int:
    """Parameters of one expert: `R (in + out)` per linear layer (LoRA), `E in` more for a gate of E branches,
    `in * out` (full MLP)."""
    total = 0
    for name in expert.projections:
        width_in, width_out = llm.projection(name)
        low = expert.rank * (width_in + width_out) + branches(expert) * width_in
        total += width_in * width_out if expert.kind == "mlp" else low
    return total * len(expert_layers(llm, expert))


def branches(expert: ExpertConfig) -> int:
    """Branches that a gate weighs; 0 where there is no gate."""
    return expert.branches if isinstance(expert, GatedConfig) else 0
