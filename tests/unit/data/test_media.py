from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.media import SAMPLE_RATE, frame_paths, load_frames, load_waveform
from data.samples import Media


def video(*paths: Path) -> Media:
    return Media("video", paths, True)


def test_frames_are_used_as_given_or_thinned(files: Any) -> None:
    greys = range(0, 100, 10)
    media = video(*(files.picture(f"f{grey}.png", grey) for grey in greys))
    assert [p.getpixel((0, 0))[0] for p in load_frames(media, 20)] == list(greys)  # type: ignore[index]
    assert [p.getpixel((0, 0))[0] for p in load_frames(media, 10)] == list(greys)  # type: ignore[index]
    assert [p.getpixel((0, 0))[0] for p in load_frames(media, 2)] == [20, 70]  # type: ignore[index]
    assert [p.name for p in frame_paths(media, 2)] == ["f20.png", "f70.png"]


def test_frames_of_images_and_video_files(files: Any) -> None:
    image = Media("image", (files.picture("i.png", 77),), True)
    assert [p.getpixel((0, 0)) for p in load_frames(image)] == [(77, 77, 77)]
    assert len(load_frames(video(files.video("v.mp4")), 4)) == 4
    assert len(load_frames(video(files.video("v.mp4")))) == 6


def test_a_waveform_is_the_mean_of_the_channels(files: Any) -> None:
    tone = files.tone()
    path = files.sound("a.wav", np.stack([tone, 0.2 * tone, 0 * tone], axis=1), subtype="FLOAT")
    waveform = load_waveform(Media("audio", (path,), True))
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, 0.4 * tone, atol=1e-6)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([8_000, 11_025, 22_050, 44_100, 48_000]), st.integers(1, 3000))
def test_resampling_gives_the_length_rounded_up(files: Any, rate: int, samples: int) -> None:
    path = files.sound("a.wav", files.tone(1.0, rate)[:samples], rate, subtype="FLOAT")
    waveform = load_waveform(Media("audio", (path,), True))
    assert len(waveform) == -(-samples * SAMPLE_RATE // rate)


def test_resampling_is_soxr_hq(files: Any) -> None:
    tone = files.tone(1.0, 44_100, level=1.2)
    path = files.sound("a.wav", tone, 44_100, subtype="FLOAT")
    waveform = load_waveform(Media("audio", (path,), True))
    np.testing.assert_allclose(waveform, soxr.resample(tone, 44_100, SAMPLE_RATE, "HQ")[:16_000], atol=1e-6)
    np.testing.assert_allclose(waveform[500:-500], files.tone(1.0, level=1.2)[500:-500], atol=1e-3)


def test_a_video_files_own_sound(files: Any) -> None:
    path = files.video("v.mp4", waveform=files.tone(1.0, 48_000), rate=48_000)
    waveform = load_waveform(Media("audio", (path,), True))
    assert len(waveform) == pytest.approx(16_000, abs=400)
    likeness = np.corrcoef(waveform[1000:15_000], files.tone(1.0)[1000:15_000])[0, 1]
    assert likeness > 0.98  # in step with the original; AAC is lossy
