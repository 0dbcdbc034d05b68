"""Tower outputs of clips: computed once, bounded, the same as the encoder's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from data.samples import Media
from data.tower_outputs import TowerOutputs
from tests.unit.data.conftest import Files


class Encoder(torch.nn.Module):
    """Gives back what it gets, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.calls: list[str] = []

    def preprocess_frames(self, images: list[Any]) -> Tensor:
        return torch.tensor([image.getpixel((0, 0))[0] for image in images]).float()[:, None, None]

    def frame_features(self, clips: list[Tensor]) -> list[Tensor]:
        self.calls.append("frames")
        return clips

    def sound_features(self, waveforms: list[Tensor]) -> list[Tensor]:
        self.calls.append("sound")
        return [waveform[None, :4, None] for waveform in waveforms]


def clips(files: Files) -> tuple[Media, Media, Media]:
    pictures = tuple(files.picture(f"{grey}.png", grey) for grey in (10, 20, 30))
    video = Media("video", pictures, True)
    return video, Media("audio", (files.sound("a.wav"),), True), Media("image", pictures[:1], True)


def test_outputs_are_the_towers_and_kept(tmp_path: Path) -> None:
    encoder, media = Encoder(), clips(Files(tmp_path))
    outputs = TowerOutputs(encoder, num_frames=8)  # type: ignore[arg-type]
    video, sound, image, again = outputs.get([*media, media[0]])
    assert video.flatten().tolist() == [10, 20, 30] and torch.equal(again, video)
    assert sound.shape == (1, 4, 1) and image.flatten().tolist() == [10]
    assert sorted(encoder.calls) == ["frames", "frames", "sound"]
    assert [tensor.shape for tensor in outputs.get(media)] == [video.shape, sound.shape, image.shape]
    assert len(encoder.calls) == 3


def test_the_oldest_are_dropped(tmp_path: Path) -> None:
    encoder, media = Encoder(), clips(Files(tmp_path))
    outputs = TowerOutputs(encoder, memory_bytes=16)  # type: ignore[arg-type]
    assert len(outputs.get(media)) == 3, "a batch may be larger than the bound"
    assert outputs.size <= 16
    outputs.get([media[2]])
    assert len(encoder.calls) == 3
    outputs.get([media[0]])
    assert len(encoder.calls) == 4


def test_frames_are_thinned_and_checked(tmp_path: Path) -> None:
    [video] = TowerOutputs(Encoder(), num_frames=1).get([clips(Files(tmp_path))[0]])  # type: ignore[arg-type]
    assert video.flatten().tolist() == [20]
    with pytest.raises(ValueError, match="num_frames: got 0"):
        TowerOutputs(SimpleNamespace(), num_frames=0)  # type: ignore[arg-type]
