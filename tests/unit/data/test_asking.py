from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.asking import clip_sample, medium_kind


def test_a_video_with_its_own_sound(files: Any) -> None:
    clip = files.video("v.mp4", waveform=files.tone())
    sample = clip_sample("What?", video=clip)
    assert sample.question == "<video>\n<audio>\nWhat?"
    assert [(m.kind, m.paths, m.tagged) for m in sample.media] == [
        ("video", (clip,), True),
        ("audio", (clip,), True),
    ]


def test_a_mute_video_and_other_media(files: Any) -> None:
    mute, sound, image = files.video("v.mp4"), files.sound("a.wav"), files.picture("i.png")
    assert clip_sample("What?", video=mute).question == "<video>\nWhat?"
    assert clip_sample("What?", video=mute, audio=sound).media[1].paths == (sound,)
    assert clip_sample("What?", image=image, audio=sound).question == "<image>\n<audio>\nWhat?"


def test_nothing_to_ask_about(files: Any) -> None:
    with pytest.raises(ValueError, match="nothing to ask about"):
        clip_sample("What?")
    with pytest.raises(ValueError, match="gone.mp4: no such file; check the path of the video"):
        clip_sample("What?", video=files.path("gone.mp4"))


def test_kinds_of_files() -> None:
    names = ("a.mp4", "a.JPG", "a.wav", "a.MKV")
    assert [medium_kind(Path(name)) for name in names] == ["video", "image", "audio", "video"]


@pytest.mark.parametrize(
    ("question", "fault"), [(" ", "is empty"), ("What <audio>?", "tag"), ("</s>", "tag")]
)
def test_a_question_that_cannot_be_asked(files: Any, question: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        clip_sample(question, image=files.picture("i.png"))
