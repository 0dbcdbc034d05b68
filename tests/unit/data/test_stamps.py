"""The real stamps set as a benchmark: photographs, recordings and video files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from data.benchmark import Benchmark, read_benchmark
from data.media import load_frames, load_waveform
from data.media_check import check_media
from data.samples import Media, Sample, read_samples

TASKS = ("Come", "Happening", "Where", "Which")


@pytest.fixture(scope="module")
def stamps(request: pytest.FixtureRequest) -> Path:
    """STAMPS, default ../shared/data/stamps_avqa."""
    root = Path(os.environ["STAMPS"]) if "STAMPS" in os.environ else None
    root = root or request.getfixturevalue("shared_data") / "stamps_avqa"
    if not root.is_dir():
        pytest.skip(f"no stamps set at {root} (set STAMPS)")
    return root


@pytest.fixture(scope="module")
def benchmark(stamps: Path, tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """A benchmark file outside the folder of the set."""
    path = tmp_path_factory.mktemp("benchmark") / "stamps.json"
    tasks = [
        {"name": t, **{s: str(stamps / f"{s}_{t}.json") for s in ("train", "val", "test")}} for t in TASKS
    ]
    path.write_text(json.dumps({"name": "stamps", "tasks": tasks}))
    return read_benchmark(path)


def spread(samples: list[Sample], count: int) -> list[Sample]:
    return samples[:: max(1, len(samples) // count)][:count]


def test_all_samples_are_read(benchmark: Benchmark) -> None:
    for task in benchmark.tasks:
        for path in (task.train, task.val, task.test):
            assert path is not None
            samples = read_samples(path)
            assert len(samples) == len(json.loads(path.read_text()))
            assert {tuple(m.kind for m in s.media) for s in samples} == {("video", "audio")}
            assert all(m.tagged for s in samples for m in s.media)
            assert all(path.exists() for s in samples for m in s.media for path in m.paths)


def test_media_can_be_decoded(benchmark: Benchmark, stamps: Path) -> None:
    tests = [task.test for task in benchmark.tasks if task.test is not None]
    some = [sample for path in tests for sample in spread(read_samples(path), 5)]
    assert check_media(some + spread(read_samples(stamps / "test_mp4.json"), 5)) == []


def test_a_video_file_gives_what_the_frames_and_the_sound_of_the_clip_give(stamps: Path) -> None:
    """The set stores some clips twice; centres of equal segments are where its frames were taken."""
    differences = []
    for sample in spread(read_samples(stamps / "test_mp4.json"), 4):
        video, sound = sample.media
        folder = stamps / "media" / video.paths[0].stem
        stored = Media("video", tuple(sorted(folder.glob("f*.jpg"))), True)
        pairs = zip(load_frames(video, len(stored.paths)), load_frames(stored), strict=True)
        differences += [np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() for a, b in pairs]
        [file] = folder.glob("a.*")
        ours, theirs = load_waveform(sound), load_waveform(Media("audio", (file,), True))
        length = min(len(ours), len(theirs))
        assert abs(len(ours) - len(theirs)) <= 1024
        assert np.corrcoef(ours[:length], theirs[:length])[0, 1] > 0.85
    assert np.mean(differences) < 5.5  # 3.2 over all clips; 7.0 where both ends are taken in
