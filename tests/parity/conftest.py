"""The recorded sets of the published systems: what is in them is read from their files, never assumed.

`PARITY_ROOT` names the folder that holds `avqacl_moe/` and `aoe_mtl/`; where it is set, a missing set is a
failure, not a skip (see completeness.py).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data.media import load_frames, load_waveform
from data.prompts import Prompt, PromptTokenizer, build_prompt
from data.samples import Sample, read_samples
from model.encoders.audio import AudioChunks
from model.encoders.features import MediaFeatures
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import Backbone, BackbonePaths, load_backbone
from model.language_model.splice import PromptBatch
from model.moe.experts import ExpertBank, ExpertConfig
from tests.parity.completeness import NOTES, recorded_folder
from tests.parity.recorded import Notes, Recorded, RecordedSet

GROUPS = {"sample": "samples.json", "edge": "edge_samples.json"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `name` runs for every sample, one with `architecture` for each of those."""
    if "name" in metafunc.fixturenames:
        names = []
        for group, file in GROUPS.items():
            path = recorded_folder() / file
            samples = json.loads(path.read_text()) if path.is_file() else []
            names += [f"{group}_{number}" for number in range(len(samples))]
        metafunc.parametrize("name", names or ["sample_0"])
    if "architecture" in metafunc.fixturenames:
        index = recorded_folder("aoe_mtl") / "arch_index.json"
        cases = list(json.loads(index.read_text())["cases"]) if index.is_file() else ["AOEMTL_1_1"]
        metafunc.parametrize("architecture", cases)


@pytest.fixture(scope="session")
def notes(pytestconfig: pytest.Config) -> Notes:
    return pytestconfig.stash[NOTES]


def existing(path: Path) -> Path:
    if not path.is_dir():
        pytest.skip(f"no recorded values at {path} (set PARITY_ROOT)")
    return path


@pytest.fixture(scope="session")
def folder() -> Path:
    return existing(recorded_folder())


@pytest.fixture(scope="session")
def aoe(notes: Notes) -> RecordedSet:
    """The recorded values of AoE-MTL and its baselines."""
    return RecordedSet(existing(recorded_folder("aoe_mtl")), notes)


@pytest.fixture(scope="session")
def recorded(folder: Path, notes: Notes) -> RecordedSet:
    return RecordedSet(folder, notes)


@dataclass
class Case:
    """One sample, what was recorded for it, and what we compute for it."""

    name: str
    sample: Sample
    expected: Recorded
    backbone: Backbone
    tokenizer: PromptTokenizer

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

    @cached_property
    @torch.no_grad()
    def patches(self) -> dict[str, Tensor]:
        """`image` and `video`, where the sample has them -> patches of all frames (F, P, W)."""
        kinds = [m.kind for m in self.sample.media if m.kind != "audio"]
        outputs = [self.backbone.encoder.vision(clip) for clip in self.pixels]
        return {
            kind: torch.cat([output for k, output in zip(kinds, outputs, strict=True) if k == kind])
            for kind in sorted(set(kinds))
        }

    @cached_property
    def chunks(self) -> AudioChunks:
        """Fbanks of all audio clips, chunk after chunk."""
        return self.backbone.encoder.audio.prepare(self.waveforms)

    @cached_property
    @torch.no_grad()
    def sounds(self) -> Tensor:
        """Audio features of all chunks (C, N, W)."""
        return self.backbone.encoder.audio(self.chunks)

    @property
    def chunk_owners(self) -> list[int]:
        """For every chunk the number of its clip, from 1; `[0]` where there is no audio."""
        if not self.waveforms:
            return [0]
        return [number for number, count in enumerate(self.chunks.counts, 1) for _ in range(count)]

    @property
    def routing(self) -> dict[str, Tensor]:
        """Modality -> routing feature as published: text (D,), the others (positions, W)."""
        found = {"text": AnchorLM(self.backbone.llm).text_feature([self.open_prompt.input_ids])[0]}
        found |= {kind: patches.mean(0) for kind, patches in self.patches.items()}
        return found | ({"audio": self.sounds.mean(0)} if self.waveforms else {})

    @cached_property
    def open_prompt(self) -> Prompt:
        return build_prompt(self.tokenizer, self.sample.question)

    @cached_property
    def closed_prompt(self) -> Prompt:
        return build_prompt(self.tokenizer, self.sample.question, self.sample.answer)

    @property
    def media_tokens(self) -> list[Tensor]:
        """Tokens of the media in the prompt, in tag order."""
        visual, audible = iter(self.visual), iter(self.audible)
        tagged = [m for m in self.sample.media if m.tagged]
        return [next(audible if m.kind == "audio" else visual).tokens for m in tagged]

    @property
    def prompt(self) -> PromptBatch:
        """The prompt to be answered."""
        return PromptBatch([self.open_prompt.input_ids], [self.media_tokens])


@pytest.fixture(scope="session")
def make_backbone(folder: Path) -> Callable[[], Backbone]:
    """Loads the recorded backbone anew, for tests that put other experts into it."""
    checkpoints = folder / "checkpoints"
    paths = BackbonePaths(checkpoints / "base", checkpoints / "clip", checkpoints / "beats.pt")
    sizes = json.loads((checkpoints / "qformer_sizes.json").read_text())
    return lambda: load_backbone(paths, qformer=sizes)


@pytest.fixture(scope="session")
def backbone(make_backbone: Callable[[], Backbone]) -> Backbone:
    return make_backbone()


@pytest.fixture(scope="session")
def expert_names(recorded: RecordedSet) -> dict[str, int]:
    """Name in the recorded files -> expert id; `base` is the bare backbone."""
    return {"base": -1, **{f"expert{number}": number for number in recorded.inputs("experts")}}


@pytest.fixture(scope="session")
def anchor_lm(recorded: RecordedSet, backbone: Backbone) -> AnchorLM:
    """The recorded LLM with all recorded full-MLP experts."""
    bank = ExpertBank(backbone.llm, ExpertConfig(kind="mlp"), backbone.identity)
    for number, path in recorded.inputs("experts").items():
        bank.load(number, path)
    return AnchorLM(backbone.llm, bank)


@pytest.fixture(scope="session")
def cases(recorded: RecordedSet, backbone: Backbone) -> dict[str, Case]:
    """All samples by name; media are encoded when first asked for, and kept."""
    tokenizer = PromptTokenizer(backbone.tokenizer)
    found = {}
    for group, file in GROUPS.items():
        for number, sample in enumerate(read_samples(recorded.folder / file)):
            name = f"{group}_{number}"
            found[name] = Case(name, sample, recorded.file(f"{name}.safetensors"), backbone, tokenizer)
    return found


@pytest.fixture
def case(cases: dict[str, Case], name: str) -> Case:
    return cases[name]
