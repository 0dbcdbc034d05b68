"""Weights that encoders start from: ImageNet's, those of a file or of an earlier run, or random ones."""

from __future__ import annotations

import logging
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch import Tensor
from torchvision.models import ResNet50_Weights

from model.tensor_files import read_plain, read_tensors

log = logging.getLogger(__name__)
EXPECTED = "the best.pt of a run with --arch HPS, or a file with the weights of one encoder"


def encoder_weights(source: str, encoder: str) -> dict[str, Tensor] | None:
    """Weights that every encoder of a model starts from; None for random ones.

    source: a .pth or .safetensors file with the weights of one encoder (of a ResNet in torchvision's layout);
        the best.pt of a run whose architecture has one encoder (HPS), or the folder of that run; `imagenet`,
        of a ResNet, for torch hub's cache or, with a network, its download; `none`. `imagenet` gives None
        for the plain encoder, and, with a warning, where there is neither network nor cache or what came is
        damaged.

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
    """Of an encoder's own file, of a run's checkpoint, or of the folder that holds it.

    Raises:
        ValueError: a file that is missing, is neither, or is of a run without a single encoder.
    """
    path = path / "best.pt" if path.is_dir() else path
    content = None if path.suffix == ".safetensors" else read_plain(path)
    if not isinstance(content, dict) or not {"config", "model"} <= set(content):
        return named(read_tensors(path), path)
    config, weights = content["config"], content["model"]
    if not isinstance(config, dict) or not isinstance(weights, dict):
        kinds = f"config is {type(config).__name__}, model {type(weights).__name__}"
        raise ValueError(f"{path}: {kinds}, expected two dictionaries; give {EXPECTED}")
    start = "encoder."
    found = {
        name.removeprefix(start): value
        for name, value in named(weights, path).items()
        if name.startswith(start)
    }
    if "conv1.weight" not in found:
        raise ValueError(
            f"{path}: a run of {config.get('arch')}, which has no single encoder; expected {EXPECTED}"
        )
    return found


def named(weights: dict[Any, Any], path: Path) -> dict[str, Tensor]:
    """The same, when all are tensors with names. Raises ValueError naming one that is not."""
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"{path}: {name!r} is {type(value).__name__}, expected tensors by name; give {EXPECTED}"
            )
    return weights
