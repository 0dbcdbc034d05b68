"""Flags of main.py: the published ones, and some more. What is not given has the published default."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from data.dense.folder import LAYOUTS
from examples.nyu.config import ARCHITECTURES, ENCODERS, NO_FILES, StudyConfig, absolute, default_experts
from model.mtl.experts import SYMMETRIES
from train.mtl.choices import WEIGHTINGS, WeightingConfig
from train.mtl.optim import OPTIMISERS, SCHEDULES, OptimConfig

SAME = argparse.SUPPRESS  # flags that were not given stay absent


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """All flags; those of the configuration are absent where they were not given."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_run_flags(parser.add_argument_group("run"))
    add_model_flags(parser.add_argument_group("model"))
    add_training_flags(parser.add_argument_group("training"))
    add_weighting_flags(parser.add_argument_group("settings of single weightings"))
    return parser


def add_run_flags(group: Any) -> None:
    """What a run does and where."""
    group.add_argument("--mode", choices=("train", "test"), default="train", help="(train)")
    group.add_argument(
        "--dataset_path", default=SAME, help="folder with train/ and val/, or `rooms`: made on first use"
    )
    group.add_argument("--dataset", choices=list(LAYOUTS), default=SAME, help="layout of the folder (nyuv2)")
    group.add_argument("--save_path", type=Path, help="folder of the run (output/mtl/ARCH_WEIGHTING_HASH)")
    group.add_argument("--load_path", type=Path, help="test: checkpoint, or folder that holds best.pt")
    group.add_argument("--gpu_id", default="0", help="which GPU; without one the CPU is used (0)")
    group.add_argument("--workers", type=int, default=0, help="processes that read data (0)")
    group.add_argument("--save_every", type=int, default=200, help="steps between checkpoints (200)")
    group.add_argument("--tensorboard", action="store_true", help="TensorBoard files in the run's folder")
    group.add_argument("--quiet", action="store_true", help="no progress bars")
    group.add_argument("--ignore_memory", action="store_true", help="start even if memory seems too small")


def add_model_flags(group: Any) -> None:
    """What is trained."""
    group.add_argument("--arch", choices=list(ARCHITECTURES), default=SAME, help="(HPS)")
    group.add_argument(
        "--num_experts",
        type=int,
        nargs="+",
        default=SAME,
        help="S shared; S P: and P per task; S P1 .. PT: and so many for each (1 1; MMoE as many in all)",
    )
    group.add_argument("--img_size", type=int, nargs="+", default=SAME, help="3 HEIGHT WIDTH (3 288 384)")
    group.add_argument("--encoder", choices=ENCODERS, default=SAME, help="(resnet50)")
    group.add_argument("--width", type=int, default=SAME, help="plain encoder: first stage's channels (64)")
    group.add_argument("--head_width", type=int, default=SAME, help="channels of the heads (256)")
    group.add_argument(
        "--pretrained",
        default=SAME,
        help="where encoders start: imagenet (ResNet), none, a file, or the folder of an HPS run (imagenet)",
    )
    group.add_argument(
        "--symmetry", choices=SYMMETRIES, default=SAME, help="experts that start equal: part or stay (broken)"
    )


def add_training_flags(group: Any) -> None:
    """How it is trained."""
    defaults = OptimConfig()
    group.add_argument("--weighting", choices=list(WEIGHTINGS), default=SAME, help="(EW)")
    group.add_argument("--epochs", type=int, default=SAME, help="(200)")
    group.add_argument("--train_bs", type=int, default=SAME, help="batch per process (8)")
    group.add_argument("--test_bs", type=int, default=SAME, help="(8)")
    group.add_argument("--seed", type=int, default=SAME, help="(0)")
    group.add_argument("--aug", action="store_true", default=SAME, help="random zoom and flip")
    group.add_argument(
        "--recompute",
        action=argparse.BooleanOptionalAction,
        default=SAME,
        help="with large batches encoders keep what their dear convolutions put out and make the rest again: "
        "less memory, the same result (yes)",
    )
    for name, value in (("bf16", "bf16"), ("fp16", "fp16"), ("fp32", "no")):
        group.add_argument(
            f"--{name}", dest="precision", action="store_const", const=value, default=SAME, help=f"in {name}"
        )
    group.add_argument("--optim", choices=list(OPTIMISERS), default=SAME, help="(adam)")
    group.add_argument("--scheduler", choices=SCHEDULES, default=SAME, help="(step)")
    for name, kind in (
        ("lr", float),
        ("weight_decay", float),
        ("momentum", float),
        ("step_size", int),
        ("gamma", float),
        ("eta_min", float),
        ("T_max", int),
        ("patience", int),
    ):
        group.add_argument(f"--{name}", type=kind, default=SAME, help=f"({getattr(defaults, name)})")


def add_weighting_flags(group: Any) -> None:
    """Settings that one weighting has; names as in LibMTL."""
    for item in fields(WeightingConfig):
        if item.name != "name":
            kind = type(item.default)
            group.add_argument(f"--{item.name}", type=kind, default=SAME, help=f"({item.default})")


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The part of the flags that belongs to the configuration, nested as there; paths of files absolute."""
    values = vars(arguments)
    optim = {item.name: values[item.name] for item in fields(OptimConfig) if item.name in values}
    weighting = {item.name: values[item.name] for item in fields(WeightingConfig) if item.name in values}
    if "weighting" in values:
        weighting["name"] = values["weighting"]
    nested = ("optim", "weighting")
    plain = [item.name for item in fields(StudyConfig) if item.name not in nested]
    top = {name: values[name] for name in plain if name in values}
    for name in ("num_experts", "img_size"):
        if name in top:
            top[name] = tuple(top[name])
    if "dataset_path" in top:
        top["dataset_path"] = absolute(top["dataset_path"])
    if "pretrained" in top:
        top["pretrained"] = absolute(top["pretrained"], NO_FILES)
    return {**top, **({"optim": optim} if optim else {}), **({"weighting": weighting} if weighting else {})}


def make_config(arguments: argparse.Namespace) -> StudyConfig:
    """The configuration of a training run."""
    values = given(arguments)
    if "dataset_path" not in values:
        raise ValueError("--dataset_path is missing: a folder with train/ and val/, or `rooms`")
    optim = OptimConfig(**values.pop("optim", {}))
    weighting = WeightingConfig(**values.pop("weighting", {}))
    config = StudyConfig(optim=optim, weighting=weighting, **values)
    if "num_experts" in values:
        return config
    return replace(config, num_experts=default_experts(config.arch, config.dataset))


def check_against(config: StudyConfig, arguments: argparse.Namespace, may_differ: Sequence[str]) -> None:
    """Flags given in test mode must agree with the checkpoint. Raises ValueError naming those that do not."""
    stored, wrong = config.as_dict(), []
    for name, value in given(arguments).items():
        pairs = value.items() if isinstance(value, dict) else [(None, value)]
        for key, wanted in pairs:
            kept = stored[name] if key is None else stored[name][key]
            wanted = list(wanted) if isinstance(wanted, tuple) else wanted
            if wanted != kept and name not in may_differ:
                wrong.append(f"--{key if key not in (None, 'name') else name} {wanted}: trained with {kept}")
    if wrong:
        raise ValueError("\n  ".join(["the checkpoint was made with other settings; leave out:", *wrong]))
