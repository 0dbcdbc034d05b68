"""Weights that encoders start from: ImageNet's, those of a file or of an earlier run, or random ones."""

from __future__ import annotations

import logging
from pathlib import Path
from pickle import UnpicklingError

from torch import Tensor
from torchvision.models import ResNet50_Weights

from model.tensor_files import read_plain, read_tensors

log = logging.getLogger(__name__)


def encoder_weights(source: str, encoder: str) -> dict[str, Tensor] | None:
    """Weights that every encoder of a model starts from; None for random ones.

    source: a .pth or .safetensors file with the weights of one encoder (of a ResNet in torchvision's layout);
        the best.pt of a run whose architecture has one encoder (HPS); `imagenet`, of a ResNet, for torch
        hub's cache or, with a network, its download; `none`. `imagenet` gives None for the plain encoder,
        and, with a warning, where there is neither network nor cache or what came is damaged.

    Raises:
        ValueError: a file that is missing, holds no tensors, or is of a run without such an encoder.
    """
    if source == "none" or (source == "imagenet" and encoder == "plain"):
        return None
    if source != "imagenet":
        return weights_of_file(Path(source))
    try:
        return dict(ResNet50_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:  # no network; a damaged file
        log.warning(
            "no ImageNet weights (%s): the encoder starts from random weights; give a local file with "
            "--pretrained FILE",
            error,
        )
        return None


def weights_of_file(path: Path) -> dict[str, Tensor]:
    """Of an encoder's own file, or of a run's checkpoint. Raises ValueError for a file without them."""
    content = None if path.suffix == ".safetensors" else read_plain(path)
    if not isinstance(content, dict) or not {"config", "model"} <= set(content):
        return read_tensors(path)
    start = "encoder."
    found = {
        name.removeprefix(start): value for name, value in content["model"].items() if name.startswith(start)
    }
    if "conv1.weight" not in found:
        raise ValueError(
            f"{path}: a run of {content['config'].get('arch')}, which has no single encoder; expected the "
            "best.pt of a run with --arch HPS, or a file with the weights of one encoder"
        )
    return found
