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
        for name in ("width", "head_width", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}; expected at least 1")
        if not any(self.num_experts) or min(self.num_experts) < 0:
            raise ValueError(f"num_experts {list(self.num_experts)}: every task needs at least one expert")

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        plain = asdict(self)
        return {**plain, "num_experts": list(self.num_experts), "img_size": list(self.img_size)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StudyConfig:
        """The inverse. Raises ValueError for a key that is missing or unknown, or a value of another kind."""
        names = known_keys(cls, values, "configuration")
        if missing := sorted(names - set(values)):
            raise ValueError(f"configuration: missing {missing}; it was not written by this version")
        known_keys(WeightingConfig, values["weighting"], "configuration, weighting")
        known_keys(OptimConfig, values["optim"], "configuration, optim")
        try:
            changed = {
                "weighting": WeightingConfig(**values["weighting"]),
                "optim": OptimConfig(**values["optim"]),
                "num_experts": tuple(values["num_experts"]),
                "img_size": tuple(values["img_size"]),
            }
            return cls(**{**values, **changed})
        except TypeError as error:  # a list for a name, a text for a number
            raise ValueError(
                f"configuration: a value of another kind ({error}); it was not written by this version"
            ) from error


def default_experts(arch: str, dataset: str) -> tuple[int, ...]:
    """One shared expert and one per task; MMoE, which has shared ones only, as many in all."""
    return (1 + len(LAYOUTS[dataset].tasks),) if arch == MMoE.__name__ else StudyConfig.num_experts


def known_keys(cls: type[Any], values: Any, place: str) -> set[str]:
    """Names of a dataclass's fields. Raises ValueError unless values are a dictionary with no others."""
    if not isinstance(values, dict):
        raise ValueError(f"{place}: got {type(values).__name__}, expected a dictionary of settings")
    names = {item.name for item in fields(cls)}
    if unknown := set(values) - names:
        raise ValueError(f"{place}: unknown {sorted(map(str, unknown))}; it was not written by this version")
    return names


def absolute(path: str, names: Collection[str] = (ROOMS,)) -> str:
    """A path that means the same from any folder; names that stand for something else stay."""
    return path if path in names else str(Path(path).resolve())
