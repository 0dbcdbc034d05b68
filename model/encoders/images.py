"""PIL images to pixel tensors, as transformers' and open_clip's CLIP preprocessing do.

Letters: N images, H height, W width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class ImageSpec:
    """How a vision tower wants its images."""

    height: int  # of the pixels given to the tower
    width: int
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)  # per channel, OpenAI CLIP's by default
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    shortest_edge: int | None = (
        None  # resize the shorter side to this, then crop the centre; None: resize to HxW
    )
    resample: int = Image.Resampling.BICUBIC.value

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "ImageSpec":
        """Read a `preprocessor_config.json`. Sizes are ints (old files) or dicts."""
        size = config["size"]
        if isinstance(size, int):
            size = {"shortest_edge": size}
        edge = size.get("shortest_edge")
        crop = config.get("crop_size") if config.get("do_center_crop", edge is not None) else None
        if isinstance(crop, int):
            crop = {"height": crop, "width": crop}
        target = crop if crop is not None else size
        if "height" not in target or (crop is None and edge is not None):
            raise ValueError(f"image preprocessing needs a centre crop or a fixed size, got {dict(config)}")
        return cls(
            target["height"],
            target["width"],
            tuple(config["image_mean"]),
            tuple(config["image_std"]),
            edge,
            config.get("resample", cls.resample),
        )


def _fit(image: Image.Image, spec: ImageSpec) -> Image.Image:
    image = image.convert("RGB")
    if spec.shortest_edge is None:
        return image.resize((spec.width, spec.height), resample=Image.Resampling(spec.resample))
    shorter, longer = sorted(image.size)
    scaled = int(spec.shortest_edge * longer / shorter)
    size = (spec.shortest_edge, scaled) if image.width <= image.height else (scaled, spec.shortest_edge)
    if size != image.size:
        image = image.resize(size, resample=Image.Resampling(spec.resample))
    left, top = (image.width - spec.width) // 2, (image.height - spec.height) // 2
    return image.crop((left, top, left + spec.width, top + spec.height))


def pixels(images: Sequence[Image.Image], spec: ImageSpec) -> Tensor:
    """(N, 3, H, W) float32: resized, centre-cropped, scaled to [0, 1] and normalised. ValueError without
    images.
    """
    if not images:
        raise ValueError("no images given")
    stack = np.stack([np.asarray(_fit(image, spec), dtype=np.float32) for image in images])
    mean, std = (np.asarray(v, dtype=np.float32) for v in (spec.mean, spec.std))
    return torch.from_numpy((stack / 255.0 - mean) / std).permute(0, 3, 1, 2).contiguous()
