"""Alignment: only projector and aligner learn, to the bit after an interruption; the result is a backbone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from data.samples import Sample, read_samples
from data.tower_outputs import TowerOutputs
from model.language_model.alignment import BridgeConfig, save_aligned, start
from model.language_model.backbone import (
    AUDIO,
    VISION,
    Backbone,
    BackbonePaths,
    find_checkpoints,
    load_backbone,
)
from tests.llm_folders import write_llm
from train.alignment import AlignmentTraining
from train.checkpoints import CheckpointFolder
from train.config import TrainConfig
from train.reporting import Reporting

CONFIG = TrainConfig(epochs=2, per_device_batch=2, accumulation=2, learning_rate=5e-3)
BRIDGE = BridgeConfig(query_tokens=2, window_seconds=4.175)


@dataclass(frozen=True)
class Parts:
    """What a test aligns."""

    paths: BackbonePaths
    samples: list[Sample]  # one of them without sound


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Iterator[Parts]:
    folder, tiny = tmp_path_factory.mktemp("parts"), repo_root / "checkpoints" / "tiny"
    items = json.loads((repo_root / "data_sample" / "train_Come_From.json").read_text())[:6]
    items[2]["conversations"][0]["value"] = "<video>\nDescribe the clip."
    (folder / "captions.json").write_text(json.dumps(items))
    samples = read_samples(folder / "captions.json", media_root=repo_root / "data_sample")
    yield Parts(BackbonePaths(write_llm(folder / "llm", "qwen2"), tiny / VISION, tiny / AUDIO), samples)


def training(
    parts: Parts, folder: Path, config: TrainConfig = CONFIG, samples: list[Sample] | None = None
) -> tuple[AlignmentTraining, Backbone]:
    backbone = start(parts.paths, BRIDGE, seed=3)
    checkpoint = CheckpointFolder(folder / "checkpoint", {"config": config.identity()})
    made = AlignmentTraining(
        backbone,
        TowerOutputs(backbone.encoder),
        parts.samples if samples is None else samples,
        config,
        Accelerator(cpu=True),
        checkpoint,
        Reporting(folder, save_every=1, progress=False),
    )
    return made, backbone


def tensors(backbone: Backbone) -> dict[str, Tensor]:
    named = {f"llm.{name}": value for name, value in backbone.llm.state_dict().items()}
    named |= {f"encoder.{name}": value for name, value in backbone.encoder.state_dict().items()}
    return {name: value.clone() for name, value in named.items()}


def test_only_the_bridge_learns_and_becomes_a_backbone(parts: Parts, tmp_path: Path) -> None:
    made, backbone = training(parts, tmp_path)
    before = tensors(backbone)
    made.run()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "train_log.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] - 0.2, losses
    changed = {name for name, value in tensors(backbone).items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(("encoder.projector.", "encoder.aligner.")) for name in changed)

    identity = save_aligned(tmp_path, backbone)
    found, preset = find_checkpoints(tmp_path)
    loaded = load_backbone(found)
    assert (loaded.identity, preset) == (identity, "published")
    assert loaded.identity != backbone.identity, "the LLM's alone"
    assert load_backbone(found, dtype=torch.bfloat16).identity == identity
    for name, value in tensors(backbone).items():
        assert torch.equal(tensors(loaded)[name], value), name


def test_an_interrupted_run_ends_with_the_same_bits(parts: Parts, tmp_path: Path) -> None:
    whole, wanted = training(parts, tmp_path / "whole")
    whole.run()
    broken, _ = training(parts, tmp_path / "broken")
    take_step = broken._step

    def stop_after_two(step: int) -> tuple[float, float]:
        if step == 2:
            raise KeyboardInterrupt
        return take_step(step)

    broken._step = stop_after_two  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    resumed, backbone = training(parts, tmp_path / "broken")
    assert resumed.run()["steps"] == 4
    for name, value in tensors(backbone).items():
        assert torch.equal(value, tensors(wanted)[name]), name


def test_a_changed_llm_is_refused(parts: Parts, tmp_path: Path) -> None:
    llm = shutil.copytree(parts.paths.base, tmp_path / "llm")
    backbone = start(BackbonePaths(llm, parts.paths.vision, parts.paths.audio), BRIDGE)
    save_aligned(tmp_path / "base", backbone)
    assert json.loads((tmp_path / "base" / "config.json").read_text())["llm"] == "../llm"
    moved = shutil.move(tmp_path, tmp_path.with_name(tmp_path.name + "_moved"))
    paths, _ = find_checkpoints(Path(moved) / "base")
    load_backbone(paths)
    write_llm(Path(moved) / "llm", "qwen2", seed=1)
    with pytest.raises(ValueError, match=r"base: made for weights \w{16}, found \w{16}; put the LLM"):
        load_backbone(paths)


def test_a_plain_llm_is_refused_with_the_command(parts: Parts) -> None:
    for call in (lambda: find_checkpoints(parts.paths.base), lambda: load_backbone(parts.paths)):
        with pytest.raises(ValueError, match="'qwen2', expected llava.*python train/train_base.py"):
            call()


def test_samples_that_cannot_be_aligned_are_named(parts: Parts, tmp_path: Path) -> None:
    bare = Sample("q7", 7, Path("c.json"), "What?", "dog", (), {})
    with pytest.raises(ValueError, match=r"c\.json, index 7, id q7: no <video>"):
        training(parts, tmp_path, samples=[bare])
    with pytest.raises(ValueError, match="more than --model_max_length 50"):
        training(parts, tmp_path, TrainConfig(max_length=50))


@pytest.mark.parametrize(
    ("bridge", "message"),
    [
        (BridgeConfig(projector="resampler"), "unknown projector type"),
        (BridgeConfig(qformer={"depth": 1}), r"unknown keys \['depth'\]"),
        (BridgeConfig(qformer={}), "128 wide, but the Q-Former reads 768"),
        (BridgeConfig(vision_layer=-9), "select_layer -9"),
        (BridgeConfig(window_seconds=0.1), "audio window of 0.1 s"),
    ],
)
def test_impossible_bridges_are_refused(parts: Parts, bridge: BridgeConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        start(parts.paths, bridge)
