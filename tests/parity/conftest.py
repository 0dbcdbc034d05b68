"""The recorded set of the published system: what is in it is read from its files, never assumed.

`PARITY_ROOT` names the folder that holds `avqacl_moe/`; where it is set, a missing set is a failure, not a
skip.
"""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from data.media import load_frames, load_waveform
from data.samples import Sample, read_samples
from model.encoders.features import MediaFeatures
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import Backbone, BackbonePaths, load_backbone
from model.language_model.splice import PromptBatch
from model.moe.experts import ExpertBank, ExpertConfig

DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "parity"
GROUPS = {"sample": "samples.json", "edge": "edge_samples.json"}


def recorded_folder() -> Path:
    return Path(os.environ.get("PARITY_ROOT", DEFAULT)) / "avqacl_moe"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `name` runs for every sample of the set."""
    if "name" in metafunc.fixturenames:
        names = []
        for group, file in GROUPS.items():
            path = recorded_folder() / file
            samples = json.loads(path.read_text()) if path.is_file() else []
            names += [f"{group}_{number}" for number in range(len(samples))]
        metafunc.parametrize("name", names or ["sample_0"])


@pytest.fixture(scope="session")
def folder() -> Path:
    path = recorded_folder()
    if not path.is_dir():
        if "PARITY_ROOT" in os.environ:
            pytest.fail(f"PARITY_ROOT is set, but there is no {path}")
        pytest.skip(f"no recorded values at {path} (set PARITY_ROOT)")
    return path


@dataclass
class Case:
    """One sample, what was recorded for it, and what we compute for its media."""

    name: str
    sample: Sample
    expected: dict[str, Tensor]
    backbone: Backbone

    @cached_property
    def pixels(self) -> list[Tensor]:
        """Pixels (F, 3, H, W) of each image and video, all frames."""
        visible = [m for m in self.sample.media if m.kind != "audio"]
        return [self.backbone.encoder.preprocess_frames(load_frames(m, len(m.paths))) for m in visible]

    @cached_property
    def waveforms(self) -> list[Tensor]:
        return [torch.from_numpy(load_waveform(m)) for m in self.sample.media if m.kind == "audio"]

    @cached_property
    def visual(self) -> list[MediaFeatures]:
        return self.backbone.encoder.encode_frames(self.pixels)

    @cached_property
    def audible(self) -> list[MediaFeatures]:
        return self.backbone.encoder.encode_audio(self.waveforms)

    @property
    def prompt(self) -> PromptBatch:
        """The recorded ids with our media tokens."""
        visual, audible = iter(self.visual), iter(self.audible)
        tagged = [m for m in self.sample.media if m.tagged]
        tokens = [next(audible if m.kind == "audio" else visual).tokens for m in tagged]
        return PromptBatch([self.expected["input_ids"]], [tokens])

    def recorded(self, key: str, value: Tensor) -> tuple[Tensor, Tensor] | None:
        """Our value and the recorded one, whole or every 8th row; None where it was not recorded."""
        if key in self.expected:
            return value[: len(self.expected[key])], self.expected[key]
        strided = self.expected.get(f"{key}_stride8")
        return None if strided is None else (value[::8][: len(strided)], strided)


@pytest.fixture(scope="session")
def backbone(folder: Path) -> Backbone:
    checkpoints = folder / "checkpoints"
    paths = BackbonePaths(checkpoints / "base", checkpoints / "clip", checkpoints / "beats.pt")
    return load_backbone(paths, qformer=json.loads((checkpoints / "qformer_sizes.json").read_text()))


@pytest.fixture(scope="session")
def expert_names(folder: Path) -> dict[str, int]:
    """Name in the recorded files -> expert id; `base` is the bare backbone."""
    ids = sorted(int(path.stem.rpartition("_")[2]) for path in (folder / "experts").glob("expert_task_*.pt"))
    assert ids, f"no experts in {folder}"
    return {"base": -1, **{f"expert{number}": number for number in ids}}


@pytest.fixture(scope="session")
def anchor_lm(folder: Path, backbone: Backbone, expert_names: dict[str, int]) -> AnchorLM:
    """The recorded LLM with all recorded full-MLP experts."""
    bank = ExpertBank(backbone.llm, ExpertConfig(kind="mlp"), backbone.identity)
    for number in expert_names.values():
        if number >= 0:
            bank.load(number, folder / "experts" / f"expert_task_{number}.pt")
    return AnchorLM(backbone.llm, bank)


@pytest.fixture(scope="session")
def cases(folder: Path, backbone: Backbone) -> dict[str, Case]:
    """All samples by name; media are encoded when first asked for, and kept."""
    found: dict[str, Any] = {}
    for group, file in GROUPS.items():
        for number, sample in enumerate(read_samples(folder / file)):
            name = f"{group}_{number}"
            found[name] = Case(name, sample, load_file(folder / "expected" / f"{name}.safetensors"), backbone)
    return found


@pytest.fixture
def case(cases: dict[str, Case], name: str) -> Case:
    return cases[name]
