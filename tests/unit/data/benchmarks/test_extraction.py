"""Frames and sounds of videos, where a benchmark's samples name them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.benchmark import Benchmark, read_benchmark
from data.benchmarks.build import Choices, build
from data.benchmarks.extraction import Clip, VideoFolder, clips_of, extract, extract_clip, plain_name
from data.benchmarks.recipe import load_recipe
from data.decoding import read_sound
from data.media_check import check_media
from data.samples import read_samples
from tests.unit.data.benchmarks.conftest import Write, published
from tests.unit.data.conftest import Files

GREYS = (20, 20, 60, 60, 100, 100, 140, 140, 180, 180, 220, 220)
KINDS = ("Come_From", "Happening", "Where", "Which")


@pytest.fixture
def benchmark(write: Write, tmp_path: Path) -> Benchmark:
    """Four clips, six frames each, in four tasks."""
    for number, kind in enumerate(KINDS):
        folder = write(f"test_{kind}.json", published(number))
    build(load_recipe("split_avqa"), "x", folder, tmp_path / "out", Choices(frames=6))
    return read_benchmark(tmp_path / "out" / "x.json")


def write_videos(files: Files, *names: str) -> VideoFolder:
    for name in names:
        files.video(f"videos/{name}", GREYS, files.tone(3.0))
    return VideoFolder(files.folder / "videos")


def test_names_of_one_source_video() -> None:
    for name in ("abcdefghij1", "abcdefghij1_000030", "abcdefghij1_trimmed", "abcdefghij1_000030_trimmed"):
        assert plain_name(name) == "abcdefghij1"
    for name in ("00000093", "esa00000446", "eGmXU1Tpc-M_flip", "abcd_000030"):
        assert plain_name(name) == name


def test_a_video_is_found_by_its_own_name_first(files: Files) -> None:
    names = (
        "a/abcdefghij1_000030.mp4",
        "b/abcdefghij1_000040.mp4",
        "abcdefghij2_trimmed.mp4",
        "c/00000093.mkv",
    )
    videos = write_videos(files, *names)
    root = files.folder / "videos"
    assert videos.find("abcdefghij1_000040") == root / names[1]
    assert videos.find("abcdefghij2") == videos.find("abcdefghij2_000001") == root / names[2]
    assert videos.find("00000093") == root / names[3]
    with pytest.raises(ValueError, match=r"got .*a/abc.*_000030.mp4 and .*b/abc.*_000040.mp4 below"):
        videos.find("abcdefghij1")
    with pytest.raises(ValueError, match="got no video below .*, expected one file 00000094.mp4"):
        videos.find("00000094")
    with pytest.raises(ValueError, match="no such folder"):
        VideoFolder(root / "none")


def test_extracted_media_are_what_the_samples_ask_for(benchmark: Benchmark, files: Files) -> None:
    videos = write_videos(files, *(f"abcdefghij{number}_000030.mp4" for number in range(4)))
    clips = clips_of(benchmark)
    assert [clip.name for clip in clips] == [f"abcdefghij{number}" for number in range(4)]
    assert extract(clips, videos, jobs=2) == []
    for path in benchmark.files("test"):
        assert check_media(read_samples(path, media_root=benchmark.media_root)) == []
    greys = [float(np.asarray(Image.open(path), float).mean()) for path in clips[0].frames]
    assert np.allclose(greys, GREYS[1::2], atol=4)  # centres of six equal segments
    assert clips[0].sound is not None
    waveform, rate = read_sound(clips[0].sound)
    assert (rate, waveform.shape[1]) == (16_000, 1) and abs(len(waveform) - 48_000) <= 2048


def test_what_is_there_is_not_made_again(benchmark: Benchmark, files: Files) -> None:
    videos = write_videos(files, "abcdefghij0.mp4")
    [clip, *_] = clips_of(benchmark)
    extract_clip(clip, videos.find(clip.name))
    assert clip.sound is not None and not clip.missing
    clip.frames[0].write_bytes(b"kept")
    clip.sound.unlink()
    extract_clip(clip, videos.find(clip.name))
    assert clip.sound.is_file() and clip.frames[0].read_bytes() == b"kept"
    clip.frames[1].unlink()
    assert clip.missing
    assert extract([clip], videos, jobs=1) == []
    assert clip.frames[0].read_bytes() != b"kept" and not clip.missing
    assert not list(clip.frames[0].parent.glob(".*"))


def test_clips_that_fail_are_named_and_the_others_are_made(benchmark: Benchmark, files: Files) -> None:
    write_videos(files, "abcdefghij0.mp4", "abcdefghij1.mp4")
    files.video("videos/abcdefghij2.mp4", GREYS[:3], files.tone())
    (files.folder / "videos" / "abcdefghij1.mp4").write_bytes(b"no video")
    videos = VideoFolder(files.folder / "videos")
    clips = clips_of(benchmark)
    failures = extract(clips, videos, jobs=2)
    assert [failure.clip for failure in failures] == ["abcdefghij1", "abcdefghij2", "abcdefghij3"]
    assert "cannot be decoded" in failures[0].reason
    assert "3 frames, expected at least 6" in failures[1].reason
    assert "got no video" in failures[2].reason
    assert [clip.missing for clip in clips] == [False, True, True, True]


def test_a_video_without_sound_gets_an_empty_sound(benchmark: Benchmark, files: Files) -> None:
    videos = [files.video(f"videos/abcdefghij{number}.mp4", GREYS) for number in range(4)]
    clips = clips_of(benchmark)
    for clip, video in zip(clips, videos, strict=True):
        extract_clip(clip, video)
    path = benchmark.files("test")[0]
    [problem] = check_media(read_samples(path, media_root=benchmark.media_root))
    assert "holds no sound, 0 samples" in str(problem)
    [sample] = read_samples(path, media_root=benchmark.media_root, missing_media="drop")
    assert sample.dropped == ("audio",) and check_media([sample]) == []


def test_a_benchmark_of_videos_needs_no_extraction(benchmark: Benchmark, write: Write) -> None:
    build(
        load_recipe("split_avqa"), "v", write("unused.json"), benchmark.path.parent, Choices(media="videos")
    )
    with pytest.raises(ValueError, match="names no frames; a benchmark made with --media videos"):
        clips_of(read_benchmark(benchmark.path.parent / "v.json"))


def test_samples_that_disagree_about_a_clip_are_refused(benchmark: Benchmark) -> None:
    path = benchmark.files("test")[1]
    [item] = json.loads(path.read_text())
    path.write_text(json.dumps([item, item | {"id": "other", "video": item["video"][:3]}]))
    with pytest.raises(ValueError, match="id 'other': wants other files of clip abcdefghij1"):
        clips_of(benchmark)


def test_a_clip_without_a_question_about_its_sound_gets_none(files: Files) -> None:
    frames = tuple(files.folder / "media" / f"{number}.jpg" for number in range(2))
    extract_clip(Clip("x", frames, None), files.video("x.mp4", GREYS))
    assert sorted(path.name for path in (files.folder / "media").iterdir()) == ["0.jpg", "1.jpg"]
