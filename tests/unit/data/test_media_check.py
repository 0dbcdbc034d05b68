from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data.media_check
from data.media_check import check_media, require_media
from data.media_index import MediaIndex
from data.problems import InputError
from data.samples import Media, Sample


def sample(index: int, *media: Media) -> Sample:
    return Sample(f"q{index}", index, Path("s.json"), "What?", "x", media, {})


def sound(path: Path) -> Media:
    return Media("audio", (path,), True)


def frames(*paths: Path) -> Media:
    return Media("video", paths, True)


def test_good_media_have_no_problems(files: Any) -> None:
    clip = files.video("v.mp4", waveform=files.tone())
    good = [
        sample(0, frames(files.picture("f.png")), sound(files.sound("a.ogg"))),
        sample(1, frames(clip), sound(clip), Media("image", (files.picture("i.jpg"),), False)),
    ]
    assert check_media(good) == []
    require_media(good)


def test_problems_name_file_index_and_id(files: Any) -> None:
    torn = files.sound("torn.wav")
    torn.write_bytes(torn.read_bytes()[:2000])
    samples = [
        sample(0, frames(files.picture("f.png"), files.path("gone.png"))),
        sample(1, sound(torn)),
        sample(2, sound(files.video("mute.mp4"))),
        sample(3, sound(files.sound("zero.wav", np.zeros(0)))),
        sample(4, frames(files.sound("a.mp3"))),
        sample(5, sound(torn), sound(torn)),
    ]
    found = check_media(samples)
    assert [(p.source, p.index, p.id) for p in found] == [(Path("s.json"), i, f"q{i}") for i in range(5)]
    gone, truncated, mute, zero, no_video = (p.message for p in found)
    assert gone.endswith("gone.png: no such file; check the path and the media root")
    assert "torn.wav: truncated" in truncated and truncated.endswith("(also used by 1 more samples)")
    assert "mute.mp4: holds no sound stream" in mute and 'missing_media "drop"' in mute
    assert "zero.wav: holds no sound, 0 samples" in zero
    assert "a.mp3: holds no video stream" in no_video
    with pytest.raises(InputError, match="5 problems"):
        require_media(samples)


def test_pictures_that_thinning_leaves_out_are_not_read(files: Any) -> None:
    paths = [files.path(f"f{i}.png") for i in range(4)]
    files.picture("f1.png")
    files.picture("f3.png")
    assert check_media([sample(0, frames(*paths))], num_frames=2) == []
    assert len(check_media([sample(0, frames(*paths))], num_frames=4)) == 2


def spy(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """Records which files are decoded."""
    decoded: list[tuple[str, Path]] = []
    fault = data.media_check._fault

    def recording(job: tuple[str, Path]) -> str | None:
        decoded.append(job)
        return fault(job)

    monkeypatch.setattr(data.media_check, "_fault", recording)
    return decoded


def names(decoded: Sequence[tuple[str, Path]]) -> list[tuple[str, str]]:
    return sorted((decoder, path.name) for decoder, path in decoded)


def test_each_file_is_decoded_once(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = spy(monkeypatch)
    clip, picture = files.video("v.mp4", waveform=files.tone()), files.picture("f.png")
    check_media([sample(i, frames(clip), sound(clip), frames(picture)) for i in range(5)])
    assert names(decoded) == [("frames", "v.mp4"), ("picture", "f.png"), ("sound", "v.mp4")]


def test_good_files_are_remembered_while_unchanged(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = spy(monkeypatch)
    mute = files.video("mute.mp4")
    samples = [sample(0, frames(mute), sound(mute)), sample(1, sound(files.sound("a.wav")))]
    for _ in range(2):
        assert len(check_media(samples, index=MediaIndex(tmp_path / "index.jsonl"))) == 1
    assert names(decoded) == [
        ("frames", "mute.mp4"),
        ("sound", "a.wav"),
        ("sound", "mute.mp4"),
        ("sound", "mute.mp4"),  # a bad file is looked at again
    ]
    decoded.clear()
    files.sound("a.wav", np.zeros(0))
    assert len(check_media(samples, index=MediaIndex(tmp_path / "index.jsonl"))) == 2
    assert ("sound", "a.wav") in names(decoded)
