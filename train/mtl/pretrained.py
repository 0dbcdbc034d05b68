"""ImageNet weights of the ResNet encoder: a local file, torch hub, or none with a warning."""

from __future__ import annotations

import logging
from pathlib import Path
from pickle import UnpicklingError

from torch import Tensor
from torchvision.models import ResNet50_Weights

from model.tensor_files import read_tensors

log = logging.getLogger(__name__)


def imagenet_weights(source: str) -> dict[str, Tensor] | None:
    """Weights in torchvision's layout.

    source: a .pth or .safetensors file; `imagenet` for torch hub's cache or, with a network, its download;
    `none`. Without network and cache, or where what came is damaged, `imagenet` warns and gives None: random
    weights.

    Raises:
        ValueError: a file that is missing or holds no tensors.
    """
    if source == "none":
        return None
    if source != "imagenet":
        return read_tensors(Path(source))
    try:
        return dict(ResNet50_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:  # no network; a damaged file
        log.warning(
            "no ImageNet weights (%s): the encoder starts from random weights; give a local file with "
            "--pretrained FILE",
            error,
        )
        return None
