"""BEATs audio transformer (S. Chen et al., "BEATs: Audio Pre-Training with Acoustic Tokenizers", arXiv
2212.09058).

An own implementation of the published architecture that reads Microsoft's checkpoints, `{"cfg": dict,
"model": state_dict}`. Forward supports gradients, so that the same class is pre-trained at any size.

Letters: B batch, T fbank frames, F mel bins, N tokens (T // patch * F // patch, time-major), W width, H
heads, K kernel.
"""

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.tensor_files import read_plain

ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu}


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

    def forward(self, x_BNW: Tensor) -> Tensor:
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        y_BWN = F.conv1d(
            x_BNW.transpose(1, 2), weight, self.bias, padding=self.kernel // 2, groups=self.groups
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
        if position_bias is not None:
            self.relative_attention_bias = position_bias  # one module, shared by all layers, stored in each
        self.gated = config.gru_rel_pos and position_bias is not None
        if self.gated:
            self.grep_linear = nn.Linear(self.head_dim, 8)
            self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))

    def forward(self, x_BNW: Tensor, bias_HNN: Tensor | None, padding_BN: Tensor | None) -> Tensor:
        shape = (*x_BNW.shape[:2], self.heads, self.head_dim)
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

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))

    def forward(self, x_BNW: Tensor, bias_HNN: Tensor | None, padding_BN: Tensor | None) -> Tensor:
        if self.norm_first:
            x_BNW = x_BNW + self.self_attn(self.self_attn_layer_norm(x_BNW), bias_HNN, padding_BN)
            return x_BNW + self.feed_forward(self.final_layer_norm(x_BNW))
        y = self.self_attn_layer_norm(self.alpha * x_BNW + self.self_attn(x_BNW, bias_HNN, padding_BN))
        return self.final_layer_norm(self.alpha * y + self.feed_forward(y))


class BEATsEncoder(nn.Module):
    """Positional convolution and transformer layers."""

    def __init__(self, config: BEATsConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder_embed_dim
        self.pos_conv = nn.ModuleList([PositionalConv(width, config.conv_pos, config.conv_pos_groups)])
        shared = None
        if config.relative_position_embedding:
            shared = nn.Embedding(config.num_buckets, config.encoder_attention_heads)
        self.layers = nn.ModuleList([BEATsLayer(config, shared) for _ in range(config.encoder_layers)])
        self.layer_norm = nn.LayerNorm(width)

    def position_bias(self, length: int) -> Tensor | None:
        """(H, length, length), the same for all layers."""
        if not self.config.relative_position_embedding:
            return None
        table = self.layers[0].self_attn.relative_attention_bias
        buckets = relative_buckets(
            length, self.config.num_buckets, self.config.max_distance, table.weight.device
        )
        return table(buckets).permute(2, 0, 1)

    def forward(self, x_BNW: Tensor, padding_BN: Tensor | None) -> Tensor:
        if padding_BN is not None:
            x_BNW = x_BNW.masked_fill(padding_BN[..., None], 0.0)
        x_BNW = x_BNW + self.pos_conv[0](x_BNW)
        if not self.config.layer_norm_first:
            x_BNW = self.layer_norm(x_BNW)
        bias_HNN = self.position_bias(x_BNW.shape[1])
        for layer in self.layers:
            x_BNW = layer(x_BNW, bias_HNN, padding_BN)
        return self.layer_norm(x_BNW) if self.config.layer_norm_first else x_BNW


class BEATs(nn.Module):
    """Patch embedding over the fbank, projection to the transformer's width, encoder."""

    def __init__(self, config: BEATsConfig) -> None:
        super().__init__()
        self.config = config
        patch = config.input_patch_size
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, stride=patch, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        if config.embed_dim != config.encoder_embed_dim:
            self.post_extract_proj = nn.Linear(config.embed_dim, config.encoder_embed_dim)
        self.encoder = BEATsEncoder(config)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise for training: Xavier with DeepNet's gain `(8 * layers) ** -0.25` on values, outputs and
        MLPs.
        """
        gain = (8.0 * self.config.encoder_layers) ** -0.25 if self.config.deep_norm else 1.0
        for layer in self.encoder.layers:
            attn = layer.self_attn
            for linear in (attn.q_proj, attn.k_proj):
                nn.init.xavier_normal_(linear.weight)
            for linear in (attn.v_proj, attn.out_proj, layer.fc1, layer.fc2):
                nn.init.xavier_normal_(linear.weight, gain=gain)
            for linear in (attn.q_proj, attn.k_proj, attn.v_proj, attn.out_proj, layer.fc1, layer.fc2):
                nn.init.zeros_(linear.bias)
            if self.config.relative_position_embedding:
                nn.init.xavier_normal_(attn.relative_attention_bias.weight)

    @property
    def width(self) -> int:
        return self.config.encoder_embed_dim

    def num_tokens(self, frames: int, bins: int) -> int:
        """N for an fbank of `frames` x `bins`."""
        return (frames // self.config.input_patch_size) * (bins // self.config.input_patch_size)

    def forward(self, fbank_BTF: Tensor, padding_BT: Tensor | None = None) -> Tensor:
        """Encode normalised fbanks.

        Args:
            fbank_BTF: (B, T, F) float.
            padding_BT: (B, T) bool, True at padding frames. Masked tokens are zeroed before the positional
                convolution and masked as attention keys; their outputs are kept. None, or no True in it:
                nothing is masked.

        Returns: (B, N, W), time-major: token = time patch * (F / patch) + frequency patch.
        """
        x_BEtf = self.patch_embedding(fbank_BTF[:, None])
        x_BNE = self.layer_norm(x_BEtf.flatten(2).transpose(1, 2))
        padding_BN = None
        if padding_BT is not None and bool(padding_BT.any()):
            padding_BN = group_mask(padding_BT, x_BNE.shape[1])
        if hasattr(self, "post_extract_proj"):
            x_BNE = self.post_extract_proj(x_BNE)
        return self.encoder(x_BNE, padding_BN)


def group_mask(mask: Tensor, groups: int) -> Tensor:
    """Coarsen a padding mask (..., n) to (..., groups): the last `n % groups` entries are dropped, the others
    cut in equal runs; a group is masked where its whole run is. (The published reduction, samples to frames
    to tokens.)
    """
    n = mask.shape[-1]
    if groups < 1 or n < groups:
        raise ValueError(f"cannot reduce a mask of {n} entries to {groups} groups")
    return mask[..., : n - n % groups].unflatten(-1, (groups, -1)).all(-1)


def load_beats(path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> BEATs:
    """Read Microsoft's `{"cfg", "model"}` file (tensors and plain values only) into a frozen model in eval
    mode.

    Raises: ValueError if the file cannot be read safely, has another layout, or its tensors do not fit its
    `cfg`.
    """
    stored = read_plain(path)
    if not isinstance(stored, dict) or not {"cfg", "model"} <= set(stored):
        keys = sorted(stored) if isinstance(stored, dict) else type(stored).__name__
        raise ValueError(
            f"{path}: expected a dict with 'cfg' and 'model' (Microsoft's BEATs layout), got {keys}"
        )
    config = BEATsConfig.from_dict(stored["cfg"])
    with torch.device("meta"):
        model = BEATs(config)
    state = {
        k: v.to(dtype)
        for k, v in stored["model"].items()
        if not (config.finetuned_model and "predictor" in k)
    }
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path}: tensors do not fit the file's own cfg: {error}") from error
    return model.requires_grad_(False).eval()


def save_beats(path: str | os.PathLike[str], model: BEATs, dtype: torch.dtype = torch.float32) -> None:
    """Write `model` in Microsoft's layout, weights as `dtype`; `load_beats` reads it back."""
    state = {name: tensor.detach().to("cpu", dtype).clone() for name, tensor in model.state_dict().items()}
    temporary = Path(path).with_name(Path(path).name + ".tmp")
    torch.save({"cfg": dataclasses.asdict(model.config), "model": state}, temporary)
    os.replace(temporary, path)
