"""Flags to configuration and back, and what a test refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from torch import nn

from examples.nyu.arguments import check_against, make_config, make_parser
from examples.nyu.config import ARCHITECTURES, StudyConfig
from examples.nyu.study import make_trainer
from train.reporting import Reporting

PUBLISHED = (
    "--weighting EW --arch AOEMTL --img_size 3 288 384 --num_experts 2 2 --dataset_path /path/to/nyuv2 "
    "--gpu_id 0 --scheduler step"
)


def parse(line: str) -> Any:
    return make_parser("").parse_args(line.split())


def test_the_published_line() -> None:
    config = make_config(parse(PUBLISHED))
    assert (config.arch, config.num_experts, config.img_size) == ("AOEMTL", (2, 2), (3, 288, 384))
    assert (config.encoder, config.train_bs, config.epochs, config.optim.lr) == ("resnet50", 8, 200, 1e-4)
    assert (config.weighting.name, config.optim.scheduler, config.optim.step_size) == ("EW", "step", 100)


def test_paths_hold_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = [make_config(parse(f"--dataset_path {path}")).dataset_path for path in ("nyu", "./nyu/", "rooms")]
    assert found == [str(tmp_path.resolve() / "nyu")] * 2 + ["rooms"]
    names = ("resnet.pth", "./resnet.pth", "imagenet", "none")
    found = [make_config(parse(f"--dataset_path rooms --pretrained {name}")).pretrained for name in names]
    assert found == [str(tmp_path.resolve() / "resnet.pth")] * 2 + ["imagenet", "none"]


def test_there_and_back() -> None:
    line = "--dataset_path rooms --arch CGC --weighting CAGrad --calpha 0.4 --optim sgd --momentum 0.8"
    config = make_config(parse(f"{line} --bf16 --aug"))
    assert (config.weighting.calpha, config.optim.momentum, config.precision, config.aug) == (
        0.4,
        0.8,
        "bf16",
        True,
    )
    assert StudyConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "HPS"}, r"configuration: unknown \['architecture'\]; it was not written by this"),
        ({"arch": None}, r"configuration: missing \['arch'\]"),
        ({"optim": {"lr": 0.1, "speed": 2}}, r"configuration, optim: unknown \['speed'\]"),
        ({"optim": 3}, "configuration, optim: got int, expected a dictionary"),
        ({"optim": {"lr": "fast"}}, "configuration: a value of another kind"),
        ({"weighting": ["EW"]}, "configuration, weighting: got list, expected a dictionary"),
        ({"weighting": {"name": "EW", 1: 2}}, r"configuration, weighting: unknown \['1'\]"),
        ({"num_experts": 2}, "configuration: a value of another kind"),
        ({"img_size": "3"}, "expected 3 HEIGHT WIDTH"),
        ({"width": "wide"}, "configuration: a value of another kind"),
        ({"encoder": []}, r"encoder \[\]; expected one of"),
        ({"arch": []}, "configuration: a value of another kind"),
    ],
)
def test_stored_configurations_of_others(changes: dict[str, Any], message: str) -> None:
    stored = {key: value for key, value in (StudyConfig().as_dict() | changes).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        StudyConfig.from_dict(stored)
    with pytest.raises(ValueError, match="configuration: got int, expected a dictionary"):
        StudyConfig.from_dict(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dataset", "encoders"),
    [
        ("nyuv2", {"AOEMTL": 4, "HPS": 1, "MMoE": 4, "CGC": 4, "PLE": 4, "STL": 3}),
        ("cityscapes", {"AOEMTL": 3, "HPS": 1, "MMoE": 3, "CGC": 3, "PLE": 3, "STL": 2}),
    ],
)
def test_every_architecture_has_a_default(dataset: str, encoders: dict[str, int]) -> None:
    """Experts and gates are made with it; each encoder has one convolution on the image."""
    assert set(encoders) == set(ARCHITECTURES)
    small = f"--dataset {dataset} --encoder plain --width 2 --head_width 4 --img_size 3 16 16"
    for arch, count in encoders.items():
        config = make_config(parse(f"--dataset_path x --arch {arch} {small}"))
        model = make_trainer(config, Accelerator(cpu=True), Reporting(), load=True).model
        first = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3]
        assert len(first) == count, arch
        if arch != "MMoE":  # folders of runs that were made without the flag go on
            assert config.num_experts == (1, 1)


def test_a_test_refuses_other_settings() -> None:
    config = make_config(parse(PUBLISHED))
    check_against(config, parse(f"--mode test {PUBLISHED}"), ("dataset_path",))
    check_against(config, parse("--mode test --dataset_path elsewhere"), ("dataset_path",))
    with pytest.raises(ValueError) as caught:
        check_against(config, parse("--mode test --arch CGC --num_experts 1 1 --lr 1 --weighting UW"), ())
    for line in (
        "--arch CGC: trained with AOEMTL",
        "--num_experts [1, 1]: trained with [2, 2]",
        "--lr 1.0",
        "--weighting UW: trained with EW",
    ):
        assert line in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "XYZ"}, "arch 'XYZ'; expected one of AOEMTL"),
        ({"encoder": "vgg"}, "encoder 'vgg'"),
        ({"img_size": (288, 384)}, "expected 3 HEIGHT WIDTH"),
        ({"dataset": "kitti"}, "dataset 'kitti'"),
        ({"width": 0}, "width 0; expected at least 1"),
        ({"head_width": 0}, "head_width 0; expected at least 1"),
        ({"epochs": 0}, "epochs 0; expected at least 1"),
        ({"arch": "HPS", "num_experts": (0,)}, r"num_experts \[0\]: every task needs at least one expert"),
        ({"arch": "STL", "num_experts": ()}, r"num_experts \[\]: every task needs at least one expert"),
        ({"arch": "HPS", "num_experts": (2, -1)}, r"num_experts \[2, -1\]: every task needs"),
    ],
)
def test_faults(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(StudyConfig(), **changes)
    with pytest.raises(ValueError, match="--dataset_path is missing"):
        make_config(parse("--arch HPS"))
