from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import data.media_check
from data.decoding import MediaError, seconds
from data.doctor.findings import Level, Section
from data.doctor.media import check_media_files, spread
from data.media_index import MediaIndex
from data.samples import Media, Sample


def sample(index: int, *media: Media) -> Sample:
    return Sample(f"q{index}", index, Path("s.json"), "What?", "x", media, {})


def check(samples: list[Sample], **options: Any) -> tuple[Section, bool, dict[Path, float]]:
    section = Section("Media")
    good, lengths = check_media_files(
        section, samples, MediaIndex(None), num_frames=8, **{"longest": 600.0, **options}
    )
    return section, good, lengths


def test_lengths(files: Any) -> None:
    assert seconds(files.sound("a.wav", files.tone(0.75))) == pytest.approx(0.75)
    assert seconds(files.video("v.mp4")) == pytest.approx(1.5)
    with pytest.raises(MediaError, match=r"gone\.wav: no such file"):
        seconds(files.path("gone.wav"))


def test_good_media_are_counted_and_timed(files: Any) -> None:
    clip, tone = files.video("v.mp4", waveform=files.tone()), files.sound("a.wav", files.tone(2.0))
    section, good, lengths = check(
        [sample(0, Media("video", (clip,), True), Media("audio", (tone,), True))], longest=1.5
    )
    assert good
    assert lengths == {tone: pytest.approx(2.0)}
    assert section.findings[0].message == "video files 1, sounds 1"
    assert section.findings[-1].message == "1 are longer than the 2 s in use"
    assert section.count(Level.WARNING) == 1


def test_faults_are_grouped(files: Any) -> None:
    mute, torn = files.video("mute.mp4"), files.sound("torn.wav")
    torn.write_bytes(torn.read_bytes()[:2000])
    gone = [sample(i, Media("video", (files.path(f"gone{i}.mp4"),), True)) for i in range(7)]
    samples = [*gone, sample(7, Media("audio", (mute,), True)), sample(8, Media("audio", (torn,), True))]
    section, good, _ = check(samples)
    assert not good
    problems = [f for f in section.findings if f.level == Level.PROBLEM]
    assert sorted(len(f.cases) for f in problems) == [0, 0, 7]
    texts = " | ".join(f.message for f in problems)
    assert all(part in texts for part in ("no such file", "holds no sound stream", "truncated"))


def test_a_sample_limits_decoding_but_not_the_search_for_missing_files(
    files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    fault = data.media_check._fault
    monkeypatch.setattr(data.media_check, "_fault", lambda job: decoded.append(job[1]) or fault(job))
    samples = [sample(i, Media("image", (files.path(f"i{i}.png"),), True)) for i in range(10)]
    for i in range(9):
        files.picture(f"i{i}.png")
    section, good, _ = check(samples, sample=2)
    assert [path.name for path in decoded] == ["i2.png", "i7.png"]
    assert not good, "i9.png is not there"
    assert "i9.png: no such file" in next(f.message for f in section.findings if f.level == Level.PROBLEM)
    assert spread(samples, 99) == samples and spread(samples, None) == samples
