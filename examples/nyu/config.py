"""The whole configuration of a run, as stored in its checkpoint."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from data.dense.folder import LAYOUTS
from model.mtl.architectures import AOEMTL, CGC, HPS, STL, Architecture, MMoE
from model.mtl.ple import PLE
from train.mtl.choices import WeightingConfig
from train.mtl.optim import OptimConfig

ARCHITECTURES: dict[str, type[Architecture]] = {
    cls.__name__: cls for cls in (AOEMTL, HPS, MMoE, CGC, PLE, STL)
}
ENCODERS = ("resnet50", "plain")
PRECISIONS = ("no", "bf16", "fp16")
ROOMS = "rooms"  # the embedded dataset
NO_FILES = ("imagenet", "none")  # of --pretrained


@dataclass(frozen=True)
class StudyConfig:
    """One model, trained once."""

    arch: str = "HPS"
    weighting: WeightingConfig = field(default_factory=WeightingConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    encoder: str = "resnet50"
    width: int = 64  # plain encoder: channels of its first stage, a quarter of its last
    head_width: int = 256  # channels of the DeepLab heads
    pretrained: str = "imagenet"  # or none, a file, an HPS run's folder; imagenet is the ResNet's
    num_experts: tuple[int, ...] = (1, 1)
    img_size: tuple[int, int, int] = (3, 288, 384)
    symmetry: str = "broken"
    dataset: str = "nyuv2"
    dataset_path: str = "/path/to/nyuv2"
    aug: bool = False
    train_bs: int = 8
    test_bs: int = 8
    epochs: int = 200
    seed: int = 0
    precision: str = "no"
    recompute: bool = True  # of large batches keep results of dear convolutions only: less memory

    def __post_init__(self) -> None:
        for name, value, known in (
            ("arch", self.arch, ARCHITECTURES),
            ("encoder", self.encoder, ENCODERS),
            ("dataset", self.dataset, LAYOUTS),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise ValueError(f"{name} {value!r}; expected one of {', '.join(known)}")
        if len(self.img_size) != 3 or self.img_size[0] != 3 or min(self.img_size) < 1:
            raise ValueError(f"img_size {list(self.img_size)}; expected 3 HEIGHT WIDTH, such as 3 288 384")

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        plain = asdict(self)
        return {**plain, "num_experts": list(self.num_experts), "img_size": list(self.img_size)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StudyConfig:
        """The inverse. Raises ValueError for a key that is missing or unknown."""
        names = {item.name for item in fields(cls)}
        if set(values) != names:
            raise ValueError(
                f"configuration: missing {sorted(names - set(values))}, unknown "
                f"{sorted(set(values) - names)}; it was not written by this version"
            )
        changed = {
            "weighting": WeightingConfig(**values["weighting"]),
            "optim": OptimConfig(**values["optim"]),
            "num_experts": tuple(values["num_experts"]),
            "img_size": tuple(values["img_size"]),
        }
        return cls(**{**values, **changed})


def absolute(path: str, names: Collection[str] = (ROOMS,)) -> str:
    """A path that means the same from any folder; names that stand for something else stay."""
    return path if path in names else str(Path(path).resolve())
