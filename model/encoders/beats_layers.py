"""Configuration and layers of BEATs (see beats.py): positional convolution, gated attention, layer.

Letters: B batch, N tokens, W width, H heads, d head width, K kernel.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


@dataclass(frozen=True)
class BEATsConfig:
    """Architecture of a BEATs model; names as in the `cfg` of Microsoft's files, defaults as in
    BEATs_iter3+.
    """

    encoder_layers: int = 12  # transformer layers
    encoder_embed_dim: int = 768  # W
    encoder_ffn_embed_dim: int = 3072  # hidden width of the feed-forward part
    encoder_attention_heads: int = 12  # H
    embed_dim: int = 512  # width of the patch embedding, projected to W where it differs
    input_patch_size: int = 16  # patch height and width over the fbank
    conv_bias: bool = False  # bias of the patch convolution
    conv_pos: int = 128  # K, kernel of the positional convolution
    conv_pos_groups: int = 16  # groups of the positional convolution
    activation_fn: str = "gelu"  # feed-forward activation
    layer_norm_first: bool = False  # pre-norm instead of post-norm
    deep_norm: bool = True  # residuals scaled by (2 * layers) ** 0.25 (DeepNet)
    relative_position_embedding: bool = True  # bucketed relative position bias, shared by all layers
    num_buckets: int = 320  # buckets of that bias
    max_distance: int = 800  # distance from which all positions share the last bucket
    gru_rel_pos: bool = True  # the bias is gated by the query
    finetuned_model: bool = False  # the file also holds a classifier (`predictor.*`), which is not used here

    def __post_init__(self) -> None:
        if self.encoder_embed_dim % self.encoder_attention_heads:
            raise ValueError(
                f"BEATs: encoder_embed_dim {self.encoder_embed_dim} is not a multiple of "
                f"encoder_attention_heads {self.encoder_attention_heads}"
            )
        if self.encoder_embed_dim % self.conv_pos_groups:
            raise ValueError(
                f"BEATs: encoder_embed_dim {self.encoder_embed_dim} is not a multiple of conv_pos_groups "
                f"{self.conv_pos_groups}"
            )
        if self.activation_fn not in ACTIVATIONS:
            raise ValueError(
                f"BEATs: activation_fn {self.activation_fn!r} is not one of {sorted(ACTIVATIONS)}"
            )
        if self.deep_norm and self.layer_norm_first:
            raise ValueError("BEATs: deep_norm needs post-norm layers, but layer_norm_first is set")

    @classmethod
    def from_dict(cls, cfg: dict[str, Any]) -> "BEATsConfig":
        """Read a `cfg` dict; training-only entries (dropout, label counts, ...) are left out."""
        sizes = (
            "encoder_layers",
            "encoder_embed_dim",
            "encoder_ffn_embed_dim",
            "encoder_attention_heads",
            "embed_dim",
        )
        missing = [name for name in sizes if name not in cfg]
        if missing:
            raise ValueError(f"BEATs cfg lacks {missing}; got keys {sorted(cfg)}")
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in cfg.items() if name in names})


class PositionalConv(nn.Module):
    """Grouped convolution over the token axis, weight-normed per kernel position: `weight = g * v /
    ||v||`.
    """

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        v = torch.randn(width, width // groups, kernel) * math.sqrt(4.0 / (kernel * width))
        self.weight_v = nn.Parameter(v)  # (W, W / groups, K)
        self.weight_g = nn.Parameter(v.norm(dim=(0, 1), keepdim=True))  # (1, 1, K)
        self.bias = nn.Parameter(torch.zeros(width))

    def weight(self) -> Tensor:
        """(W, W / groups, K)"""
        return self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))

    def forward(self, x_BNW: Tensor) -> Tensor:
        y_BWN = F.conv1d(
            x_BNW.transpose(1, 2), self.weight(), self.bias, padding=self.kernel // 2, groups=self.groups
        )
        return F.gelu(y_BWN[..., : x_BNW.shape[1]]).transpose(
            1, 2
        )  # an even kernel gives one position too many


def relative_buckets(
    length: int, num_buckets: int, max_distance: int, device: torch.device | None = None
) -> Tensor:
    """Bucket of `key - query` for every pair, T5 style (arXiv 1910.10683): half of the buckets per direction;
    of these half are exact, the others grow logarithmically up to `max_distance`. Returns (length, length)
    int64.
    """
    position = torch.arange(length, device=device)
    offset = position[None, :] - position[:, None]  # (query, key)
    half = num_buckets // 2
    exact = half // 2
    distance = offset.abs()
    log_ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (log_ratio * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(distance < exact, distance, far) + half * (offset > 0)


class GatedAttention(nn.Module):
    """Self-attention with a relative position bias that each query scales (Gated Relative Position Bias,
    WavLM, arXiv 2110.13900): `softmax(q k / sqrt(d) + g(q) * bias)`, `g = a (b * grep_a - 1) + 2`, `a, b =
    sigmoid(...)` of q.
    """

    def __init__(self, config: BEATsConfig, position_bias: nn.Embedding | None) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.heads = config.encoder_attention_heads
        self.head_dim = width // self.heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.relative_attention_bias = position_bias  # one module, shared by all layers, stored in each
        self.gated = config.gru_rel_pos and position_bias is not None
        if self.gated:
            self.grep_linear = nn.Linear(self.head_dim, 8)
            self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))

    def forward(self, x_BNW: Tensor, bias_HNN: Tensor | None, padding_BN: Tensor | None) -> Tensor:
        shape = (*x_BNW.shape[:2], self.heads, self.head_dim)
        x_BNW = x_BNW.to(self.q_proj.weight.dtype)  # once for all three
        q, k, v = (
            p(x_BNW).view(shape).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )  # (B,H,N,d)
        mask = bias_HNN
        if self.gated and bias_HNN is not None:
            gates = torch.sigmoid(self.grep_linear(q).unflatten(-1, (2, 4)).sum(-1))  # (B, H, N, 2)
            a, b = gates.chunk(2, dim=-1)
            mask = (a * (b * self.grep_a - 1.0) + 2.0) * bias_HNN  # (B, H, N, N)
        if padding_BN is not None:
            closed = torch.zeros(padding_BN.shape, dtype=q.dtype, device=q.device)
            closed = closed.masked_fill(padding_BN, float("-inf"))[:, None, None, :]
            mask = closed if mask is None else mask + closed
        if torch.is_grad_enabled() and mask is not None and mask.requires_grad:
            scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5  # fused kernels give the bias no gradient
            y = torch.softmax(scores + mask, dim=-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class BEATsLayer(nn.Module):
    """Transformer layer; post-norm: `x = norm(alpha x + f(x))` with DeepNet's alpha (arXiv 2203.00555), or
    pre-norm.
    """

    def __init__(self, config: BEATsConfig, position_bias: nn.Embedding | None) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.self_attn = GatedAttention(config, position_bias)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.activation = ACTIVATIONS[config.activation_fn]
        self.norm_first = config.layer_norm_first
        self.alpha = (2.0 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0

        self.gain = (8.0 * config.encoder_layers) ** -0.25 if config.deep_norm else 1.0

    def reset_parameters(self) -> None:
        """Initialise for training: Xavier, with DeepNet's gain `(8 * layers) ** -0.25` on values, outputs,
        MLP.
        """
        attn = self.self_attn
        for linear in (attn.q_proj, attn.k_proj):
            nn.init.xavier_normal_(linear.weight)
        for linear in (attn.v_proj, attn.out_proj, self.fc1, self.fc2):
            nn.init.xavier_normal_(linear.weight, gain=self.gain)
        for linear in (attn.q_proj, attn.k_proj, attn.v_proj, attn.out_proj, self.fc1, self.fc2):
            nn.init.zeros_(linear.bias)
        if attn.relative_attention_bias is not None:
            nn.init.xavier_normal_(attn.relative_attention_bias.weight)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))

    def forward(self, x_BNW: Tensor, bias_HNN: Tensor | None, padding_BN: Tensor | None) -> Tensor:
        if self.norm_first:
            x_BNW = x_BNW + self.self_attn(self.self_attn_layer_norm(x_BNW), bias_HNN, padding_BN)
            return x_BNW + self.feed_forward(self.final_layer_norm(x_BNW))
        y = self.self_attn_layer_norm(self.alpha * x_BNW + self.self_attn(x_BNW, bias_HNN, padding_BN))
        return self.final_layer_norm(self.alpha * y + self.feed_forward(y))
