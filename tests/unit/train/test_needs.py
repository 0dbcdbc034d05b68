"""Sizes predicted are those of the files that are written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data.feature_files import FeatureFiles
from data.samples import Media
from model.encoders.features import MediaFeatures
from model.language_model.backbone import Backbone, find_checkpoints, load_backbone
from model.moe.anchor_files import save_anchor, stats_path
from model.moe.anchors import Anchor
from model.moe.expert_files import ExpertHeader, write_expert
from model.moe.experts import ExpertBank, ExpertConfig
from train.cells import Cell
from train.config import TrainConfig
from train.needs import clip_bytes, modality_bytes, sound_windows, study_needs

HEADERS = 4000  # bytes of table and metadata that are not counted


@pytest.fixture(scope="module")
def backbone(repo_root: Path) -> Backbone:
    paths, _ = find_checkpoints(repo_root / "checkpoints")
    return load_backbone(paths, shapes_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_of_a_clip_are_those_of_its_file(
    backbone: Backbone, tmp_path: Path, dtype: torch.dtype
) -> None:
    encoder = backbone.encoder
    sound = Media("audio", (Path("a.wav"),), True)
    waveform = torch.zeros(5 * 16_000)
    made = encoder.encode_audio([waveform])[0]
    stored = MediaFeatures(made.tokens.to(dtype), made.routing)
    FeatureFiles(tmp_path).write("abcd", stored)
    written = FeatureFiles(tmp_path).path("abcd").stat().st_size
    assert 0 <= written - clip_bytes(encoder, sound, {Path("a.wav"): 5.0}, dtype) < 300
    [frames] = encoder.encode_frames([torch.zeros(2, 3, 96, 96)])
    video = Media("video", (Path("v.mp4"),), True)
    assert clip_bytes(encoder, video, {}, torch.float32) == frames.tokens.nbytes + frames.routing.nbytes


def test_windows_of_a_sound(backbone: Backbone) -> None:
    tower = backbone.encoder.audio  # windows of 4.175 s, at most 20
    assert [sound_windows(tower, s) for s in (None, 0.0, 4.1, 4.2, 8.4, 1e6)] == [1, 1, 1, 2, 3, 20]


@pytest.mark.parametrize("width", [192, 2000])
def test_bytes_of_an_anchor_are_those_of_its_files(tmp_path: Path, width: int) -> None:
    path = tmp_path / "anchor_task_0.pt"
    save_anchor(Anchor.from_features(0, {"text": torch.rand(3, width)}), path)
    written = path.stat().st_size + stats_path(path).stat().st_size
    assert 0 <= written - modality_bytes(width) < HEADERS


@pytest.mark.parametrize("kind", ["lora", "mlp"])
def test_a_study_adds_up(backbone: Backbone, tmp_path: Path, kind: str) -> None:
    config = TrainConfig(epochs=3, per_device_batch=2, accumulation=4, expert=ExpertConfig(kind=kind, rank=4))
    files = (Path("a.json"), Path("b.json"))
    cells = [
        Cell("anchor_moe", 0, files[:1], tmp_path, tmp_path, tmp_path),
        Cell("blind", 0, files[:1], tmp_path, tmp_path, tmp_path, without_media=True),
        Cell("joint", 1, files, tmp_path, None, tmp_path),
    ]
    clips = [Media("video", (Path(f"{n}.mp4"),), True) for n in range(3)]
    counts = {files[0]: 9, files[1]: 8}
    needs = study_needs(backbone, config, cells, counts, clips, clips[:1], {}, torch.bfloat16, processes=2)
    assert (needs.clips, needs.clips_to_encode, needs.experts, needs.anchors) == (3, 1, 3, 2)
    assert needs.steps == 3 * (1 + 1 + 2)  # steps of 16 questions
    assert needs.anchor_bytes == 2 * modality_bytes(192) + modality_bytes(128)
    llm = sum(p.numel() for p in backbone.llm.parameters())
    encoder = sum(p.nbytes for p in backbone.encoder.parameters())
    assert needs.host_bytes == 2 * llm + encoder

    bank = ExpertBank(backbone.llm, config.expert)
    shapes = bank.expected_shapes()
    bank.detach()
    header = ExpertHeader(kind, 4, 32.0, 0, None)
    stored = torch.bfloat16 if kind == "mlp" else torch.float32  # as ExpertBank.save writes it
    tensors = {key: torch.zeros(shape, dtype=stored) for key, shape in shapes.items()}
    write_expert(tmp_path / "expert_task_0.pt", header, tensors)
    written = (tmp_path / "expert_task_0.pt").stat().st_size
    assert 0 <= written - needs.expert_bytes < 0.1 * written + HEADERS
    assert needs.checkpoint_bytes == 3 * 4 * sum(tensor.numel() for tensor in tensors.values())
    experts = 3 * needs.expert_bytes + needs.checkpoint_bytes
    assert needs.disk_bytes == needs.store_bytes + experts + needs.anchor_bytes
