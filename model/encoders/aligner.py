"""Audio aligner: the Q-Former of BLIP-2 (J. Li et al., arXiv 2301.12597) reads BEATs features with learned
queries.

transformers' Blip2QFormerModel is used unchanged; its parameter names are those of the published checkpoints.

Letters: C chunks, N audio tokens, W audio width, Q query tokens, D LLM width.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from model.encoders.projector import build_projector

UNUSED_KEYS = {"vocab_size"}  # a size of the text half, which the audio aligner does not have


@dataclass(frozen=True)
class QFormerConfig:
    """Sizes of the Q-Former; the defaults are the published ones. The number of heads cannot be read from
    weights.
    """

    hidden_size: int = 768  # query width; equals the audio width in the published system
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    cross_attention_frequency: int = 2  # cross-attention in layers 0, 2, 4, ... for 2
    encoder_hidden_size: int = 768  # W
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    dropout: float = 0.1  # in training mode only

    @classmethod
    def from_dict(cls, sizes: Mapping[str, Any]) -> "QFormerConfig":
        """Raises: ValueError for a key that is no field."""
        names = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(sizes) - names - UNUSED_KEYS)
        if unknown:
            raise ValueError(f"Q-Former sizes: unknown keys {unknown}; known are {sorted(names)}")
        return cls(**{name: value for name, value in sizes.items() if name in names})


class QFormer(nn.Module):
    """Holder that gives the published key prefix `qformer.qformer.`."""

    def __init__(self, config: QFormerConfig, attn_implementation: str) -> None:
        super().__init__()
        sizes = dataclasses.asdict(config)
        dropout = sizes.pop("dropout")
        self.qformer = Blip2QFormerModel._from_config(
            Blip2QFormerConfig(**sizes, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout),
            attn_implementation=attn_implementation,
        )

    def forward(self, queries_CQW: Tensor, audio_CNW: Tensor) -> Tensor:
        return self.qformer(query_embeds=queries_CQW, encoder_hidden_states=audio_CNW).last_hidden_state


class AudioAligner(nn.Module):
    """Q learned queries attend to the N audio tokens of each chunk, then a linear map leads to the LLM's
    width.

    State keys as published: `query_tokens` (1, Q, hidden), `qformer.qformer.*`, `projector.{weight,bias}`.
    """

    def __init__(
        self,
        config: QFormerConfig,
        query_tokens: int,
        llm_width: int,
        projector_type: str = "linear",
        attn_implementation: str = "eager",
    ) -> None:
        super().__init__()
        self.config = config
        self.llm_width = llm_width
        self.query_tokens = nn.Parameter(torch.randn(1, query_tokens, config.hidden_size) * 0.02)
        self.qformer = QFormer(config, attn_implementation)
        self.projector = build_projector(projector_type, config.hidden_size, llm_width)

    def forward(self, audio_CNW: Tensor) -> Tensor:
        """(C, N, W) -> (C, Q, D). Every audio token is attended to, those at padding included (as
        published).
        """
        if audio_CNW.shape[-1] != self.config.encoder_hidden_size:
            raise ValueError(
                f"audio features are {audio_CNW.shape[-1]} wide, "
                f"the Q-Former expects {self.config.encoder_hidden_size}"
            )
        queries_CQW = self.query_tokens.expand(audio_CNW.shape[0], -1, -1)
        return self.projector(self.qformer(queries_CQW, audio_CNW))
