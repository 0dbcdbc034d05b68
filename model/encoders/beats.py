"""BEATs audio transformer (S. Chen et al., "BEATs: Audio Pre-Training with Acoustic Tokenizers", arXiv
2212.09058).

An own implementation of the published architecture that reads Microsoft's checkpoints, `{"cfg": dict,
"model": state_dict}`. Forward supports gradients, so that the same class is pre-trained at any size.

Letters: B batch, T fbank frames, F mel bins, N tokens (T // patch * F // patch, time-major), W width, H
heads, K kernel.
"""

import dataclasses
import logging
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from model.encoders.beats_layers import BEATsConfig, BEATsLayer, PositionalConv, relative_buckets
from model.tensor_files import read_plain

logger = logging.getLogger(__name__)
CLASSIFIER = "predictor."  # of fine-tuned files, on top of the features

__all__ = ["BEATs", "BEATsConfig", "PositionalConv", "group_mask", "load_beats", "save_beats"]


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
        first = self.layers[0]
        assert isinstance(first, BEATsLayer)
        table = first.self_attn.relative_attention_bias
        if table is None:
            return None
        buckets = relative_buckets(
            length, self.config.num_buckets, self.config.max_distance, table.weight.device
        )
        return table(buckets).permute(2, 0, 1).contiguous()  # every layer reads all of it

    def forward(self, x_BNW: Tensor, padding_BN: Tensor | None) -> Tensor:
        if padding_BN is not None:
            x_BNW = x_BNW.masked_fill(padding_BN[..., None], 0.0)
        for conv in self.pos_conv:
            x_BNW = x_BNW + conv(x_BNW)
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
        same = config.embed_dim == config.encoder_embed_dim
        self.post_extract_proj = None if same else nn.Linear(config.embed_dim, config.encoder_embed_dim)
        self.encoder = BEATsEncoder(config)
        for layer in self.encoder.layers:
            assert isinstance(layer, BEATsLayer)
            layer.reset_parameters()

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
        if self.post_extract_proj is not None:
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


def load_beats(path: str | Path, dtype: torch.dtype = torch.float32) -> BEATs:
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
    try:
        config = BEATsConfig.from_dict(stored["cfg"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    with torch.device("meta"):
        model = BEATs(config)
    state = {name: tensor.to(dtype) for name, tensor in stored["model"].items()}
    if config.finetuned_model:
        for name in [name for name in state if name.startswith(CLASSIFIER)]:
            logger.info("%s: fine-tuned; its classifier %s is not used", path, name)
            del state[name]
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path}: tensors do not fit the file's own cfg: {error}") from error
    return model.requires_grad_(False).eval()


def save_beats(path: str | Path, model: BEATs, dtype: torch.dtype = torch.float32) -> None:
    """Write `model` in Microsoft's layout, weights as `dtype`; `load_beats` reads it back."""
    state = {name: tensor.detach().to("cpu", dtype).clone() for name, tensor in model.state_dict().items()}
    temporary = Path(path).with_name(Path(path).name + ".tmp")
    torch.save({"cfg": dataclasses.asdict(model.config), "model": state}, temporary)
    os.replace(temporary, path)
