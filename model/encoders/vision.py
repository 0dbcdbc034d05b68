"""Frozen vision towers: CLIP (A. Radford et al., arXiv 2103.00020) and SigLIP, SigLIP 2 (X. Zhai et al.,
arXiv 2303.15343; M. Tschannen et al., arXiv 2502.14786) of transformers, and open_clip models.

Features are patch tokens of one of the last layers, by default the last but one (LLaVA, arXiv 2304.08485),
as the layer gives them: without the class token and any norm after the layers. What stands above the layer is
dropped at loading.

Letters: N images, P patches, W width, H height.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from model.encoders.images import ImageSpec, pixels
from model.tensor_files import check_model_folder, check_torch_file, read_json

logger = logging.getLogger(__name__)
OPEN_CLIP = "open_clip:"
FAMILIES = {  # model_type of config.json -> class, class tokens before the patches
    "clip": ("CLIPVisionModel", 1),
    "clip_vision_model": ("CLIPVisionModel", 1),
    "siglip": ("SiglipVisionModel", 0),  # SigLIP 2 of fixed size too
    "siglip_vision_model": ("SiglipVisionModel", 0),
}
TEXT_HALF = (
    "text_model.",
    "text_projection.",
    "visual_projection.",
    "logit_scale",
    "logit_bias",
    "vision_model.embeddings.position_ids",
)


class VisionTower(nn.Module):
    """Patch features of a frozen image model.

    Attributes: width (W), patches (P), image_size (H, W of the pixels), spec (preprocessing), select_layer.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: ImageSpec,
        select_layer: int,
        open_clip_layer: int | None = None,
        class_tokens: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.spec = spec
        self.select_layer = select_layer
        self.open_clip_layer = (
            open_clip_layer  # index of the block whose output is taken, None for transformers
        )
        self.class_tokens = class_tokens  # of a transformers model, before its patches
        self.image_size = (spec.height, spec.width)
        self.patches, self.width = self._sizes()

    def _sizes(self) -> tuple[int, int]:
        """P and W, from the configuration or, where there is none, from the features of a blank image."""
        config: Any = getattr(self.model, "config", None)
        if config is not None:
            return (config.image_size // config.patch_size) ** 2, config.hidden_size
        with torch.no_grad():
            patches, width = self(torch.zeros(1, 3, *self.image_size)).shape[1:]
        return patches, width

    @classmethod
    def load(
        cls,
        path: str | Path,
        select_layer: int = -2,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> "VisionTower":
        """Load from a Hugging Face CLIP or SigLIP folder or, with the prefix `open_clip:`, from open_clip.

        `open_clip:NAME:WEIGHTS` takes open_clip's model NAME with WEIGHTS, a local file or the tag of
        published ones;
        `open_clip:local-dir:FOLDER` and `open_clip:hf-hub:REPO` name both at once.

        Raises: ValueError if something is missing, cannot be read, does not fit, or select_layer is not in
        the model.
        """
        if select_layer >= 0:
            raise ValueError(
                f"select_layer counts from the end (-1 last, -2 last but one), got {select_layer}"
            )
        if str(path).startswith(OPEN_CLIP):
            tower = _load_open_clip(str(path)[len(OPEN_CLIP) :], select_layer)
        else:
            tower = _load_transformers(Path(path), select_layer)
        return tower.to(device, dtype).requires_grad_(False).eval()

    def preprocess(self, images: Sequence[Image.Image]) -> Tensor:
        """(N, 3, H, W) float32 from PIL images of any size and mode."""
        return pixels(images, self.spec)

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, P, W)."""
        x = pixels_N3HW.to(next(self.model.parameters()))
        if self.open_clip_layer is None:
            return self.model(x).last_hidden_state[:, self.class_tokens :]
        model: Any = self.model  # an open_clip tower
        found = model.forward_intermediates(
            x, indices=[self.open_clip_layer], stop_early=True, intermediates_only=True, output_fmt="NLC"
        )
        return found["image_intermediates"][0]


def _load_transformers(folder: Path, select_layer: int) -> VisionTower:
    import transformers

    name, class_tokens = _family(folder)
    spec = ImageSpec.from_hf(read_json(folder / "preprocessor_config.json"))
    check_model_folder(folder)
    try:
        with quiet_loading():
            model, info = getattr(transformers, name).from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # reported and refused below
                output_loading_info=True,
            )
    except Exception as error:  # the kinds vary with the container; the folder is what the user needs to know
        raise ValueError(f"{folder}: {name} weights cannot be loaded: {error}") from error
    unexpected = [key for key in info["unexpected_keys"] if not key.startswith(TEXT_HALF)]
    if info["missing_keys"] or info["mismatched_keys"] or unexpected:
        raise ValueError(
            f"{folder}: weights do not fit the configuration; missing {sorted(info['missing_keys'])[:5]}, "
            f"unexpected {sorted(unexpected)[:5]}, of other shape {sorted(info['mismatched_keys'])[:5]}"
        )
    body = getattr(model, "vision_model", model)
    _check_layer(select_layer, len(body.encoder.layers), str(folder))
    body.encoder.layers = body.encoder.layers[: len(body.encoder.layers) + select_layer + 1]
    if not class_tokens:  # SigLIP norms all patches and pools them; CLIP norms its class token only
        body.post_layernorm, body.head, body.use_head = nn.Identity(), None, False
    expected = model.config.image_size
    if (spec.height, spec.width) != (expected, expected):
        raise ValueError(
            f"{folder}: preprocessor_config.json makes {spec.height}x{spec.width} pixels, "
            f"the model wants {expected}"
        )
    return VisionTower(model, spec, select_layer, class_tokens=class_tokens)


def _family(folder: Path) -> tuple[str, int]:
    """Class name and class tokens of a folder's model; ValueError for other models."""
    kind = read_json(folder / "config.json").get("model_type")
    if kind in FAMILIES:
        return FAMILIES[kind]
    if str(kind).startswith("siglip2"):
        raise ValueError(
            f"{folder / 'config.json'}: {kind} is a SigLIP 2 of variable size (NaFlex), where the number of "
            "patches depends on the picture; take one of fixed size, e.g. siglip2-base-patch16-224"
        )
    raise ValueError(
        f"{folder / 'config.json'}: model_type {kind!r} is no CLIP or SigLIP model ({', '.join(FAMILIES)})"
    )


def _load_open_clip(name: str, select_layer: int) -> VisionTower:
    import open_clip

    weights = None
    if not name.startswith(("local-dir:", "hf-hub:")):
        name, _, weights = name.partition(":")
        if not weights:
            tags = open_clip.list_pretrained_tags_by_model(name)
            raise ValueError(f"open_clip:{name}: name weights too, open_clip:{name}:FILE or a tag of {tags}")
    try:
        check_open_clip(name, weights)
        clip = open_clip.create_model(name, pretrained=weights, require_pretrained=True, weights_only=True)
    except Exception as error:
        raise ValueError(f"open_clip:{name}: cannot be loaded from {weights or name}: {error}") from error
    config = open_clip.get_model_preprocess_cfg(clip)
    size = config["size"] if not isinstance(config["size"], int) else (config["size"],) * 2
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[
        config["interpolation"]
    ]
    if config.get("resize_mode", "shortest") not in ("shortest", "squash"):
        raise ValueError(f"open_clip:{name}: resize mode {config['resize_mode']!r} is not supported")
    edge = None if config.get("resize_mode") == "squash" else min(size)
    spec = ImageSpec(size[0], size[1], tuple(config["mean"]), tuple(config["std"]), edge, resample.value)
    blocks = _open_clip_blocks(clip.visual)
    _check_layer(select_layer, blocks, f"open_clip:{name}")
    return VisionTower(clip.visual, spec, select_layer, open_clip_layer=blocks + select_layer)


def check_open_clip(name: str, weights: str | None) -> None:
    """`check_torch_file` for the file that open_clip is about to read; what has to be downloaded for that is
    downloaded here."""
    from open_clip import download_pretrained, factory, get_pretrained_cfg

    kind, place = factory.parse_model_name(name)
    if kind == "local-dir":
        path = factory._find_checkpoint_in_dir(Path(place))  # which one of several is open_clip's choice
    elif kind == "hf-hub":
        path = factory.download_pretrained_from_hf(place)
    elif tag := get_pretrained_cfg(place.replace("/", "-"), weights):
        path = download_pretrained(tag)
    else:
        path = weights
    if path and Path(path).suffix not in (".safetensors", ".npz", ".npy"):
        check_torch_file(path)


def _open_clip_blocks(visual: Any) -> int:
    if hasattr(visual, "transformer"):
        return len(visual.transformer.resblocks)
    trunk = getattr(visual, "trunk", None)
    if trunk is not None and hasattr(trunk, "blocks"):
        return len(trunk.blocks)
    raise ValueError(f"open_clip: {type(visual).__name__} is no vision transformer")


def _check_layer(select_layer: int, layers: int, source: str) -> None:
    if layers + select_layer < 0:
        raise ValueError(
            f"{source}: select_layer {select_layer} asks for more than the {layers} layers there are"
        )


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' progress bar and report; what does not fit is raised by the caller."""
    from transformers.utils import logging as hf_logging

    shown, verbosity = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if shown:
            hf_logging.enable_progress_bar()
