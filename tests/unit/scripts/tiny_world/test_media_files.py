"""Media files hold what was rendered, and hold the same bytes on every run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.media import load_frames, load_waveform
from data.samples import Media
from scripts.tiny_world.kinds import named_kinds
from scripts.tiny_world.media_files import write_flac, write_frames, write_mp4, write_ogg
from scripts.tiny_world.places import named_places
from scripts.tiny_world.render import render
from scripts.tiny_world.scene import compose_scene


@pytest.fixture(scope="module")
def clip() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return render(compose_scene(rng, named_places()[1], named_kinds()[2]), rng, 96, 6, 1.5)


def _spectrum(wave: np.ndarray) -> np.ndarray:
    power = np.abs(np.fft.rfft(wave, 32_000))[: 32_000 // 2]
    return np.log10(power.reshape(-1, 100).mean(1) + 1e-2)


@pytest.mark.parametrize("writer", [write_flac, write_ogg])
def test_sound_files_sound_like_the_waveform(
    writer, clip: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / ("a.flac" if writer is write_flac else "a.ogg")
    writer(path, clip[1])
    wave = load_waveform(Media("audio", (path,), True))
    assert abs(len(wave) - len(clip[1])) < 400
    assert np.corrcoef(_spectrum(wave), _spectrum(clip[1]))[0, 1] > 0.97


def test_frames_look_like_the_pictures(clip: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    paths = [tmp_path / f"f{i}.jpg" for i in range(6)]
    write_frames(paths, clip[0])
    for path, frame in zip(paths, clip[0], strict=True):
        assert np.abs(np.asarray(Image.open(path), np.int16) - frame).mean() < 8


def test_a_video_file_holds_picture_and_sound(clip: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_mp4(path, *clip)
    frames = load_frames(Media("video", (path,), True), num_frames=6)
    assert len(frames) == 6
    for frame, original in zip(frames, clip[0], strict=True):
        assert np.abs(np.asarray(frame, np.int16) - original).mean() < 10
    wave = load_waveform(Media("audio", (path,), True))
    assert abs(len(wave) - len(clip[1])) < 2100  # AAC works in blocks of 1024
    assert np.corrcoef(_spectrum(wave), _spectrum(clip[1]))[0, 1] > 0.95


def test_writing_twice_gives_the_same_bytes(clip: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    for run in ("one", "two"):
        folder = tmp_path / run
        folder.mkdir()
        write_frames([folder / "f0.jpg"], clip[0][:1])
        write_flac(folder / "a.flac", clip[1])
        write_ogg(folder / "a.ogg", clip[1])
        write_mp4(folder / "c.mp4", *clip)
    for name in ("f0.jpg", "a.flac", "a.ogg", "c.mp4"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
