from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.problems import InputError
from data.samples import Media, read_samples


def item(
    question: Any = "<video>\n<audio>\nWhat is it?", answer: Any = "a dog", **fields: Any
) -> dict[str, Any]:
    """One item of a sample file; it has two frames and a sound where no media are given."""
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    if not fields.keys() - {"id"}:
        fields |= {"video": ["f0.png", "f1.png"], "voice": ["a.wav"]}
    return {"conversations": turns, **fields}


def media_of(sample: Any, root: Path) -> list[tuple[str, list[str], bool]]:
    return [(m.kind, [str(p.relative_to(root)) for p in m.paths], m.tagged) for m in sample.media]


def test_every_field(files: Any, tmp_path: Path) -> None:
    path = files.samples(
        item(id="q0"),
        item("<image>\nWhat?", "x", image="i.png"),
        item("<audio>\nWhat?", "x", voice="a.wav", id=7),
    )
    first, second, third = read_samples(path)
    assert (first.id, second.id, third.id) == ("q0", "1", "7")
    assert [s.index for s in (first, second, third)] == [0, 1, 2]
    assert first.source == path
    assert (first.question, first.answer) == ("<video>\n<audio>\nWhat is it?", "a dog")
    assert first.question_text == "What is it?"
    assert media_of(first, tmp_path) == [("video", ["f0.png", "f1.png"], True), ("audio", ["a.wav"], True)]
    assert media_of(second, tmp_path) == [("image", ["i.png"], True)]
    assert media_of(third, tmp_path) == [("audio", ["a.wav"], True)]
    assert first.raw == json.loads(path.read_text())[0]


def test_media_follow_the_tags(files: Any, tmp_path: Path) -> None:
    question = "<audio> then <image>\n<video>\n<audio>\nWhat?"
    fields = {"video": ["f0.png"], "voice": ["a.wav", "b.wav"], "image": ["i.png"]}
    [sample] = read_samples(files.samples(item(question, **fields)))
    assert [(kind, paths[0]) for kind, paths, _ in media_of(sample, tmp_path)] == [
        ("audio", "a.wav"),
        ("image", "i.png"),
        ("video", "f0.png"),
        ("audio", "b.wav"),
    ]


def test_video_as_frames_file_or_files(files: Any, tmp_path: Path) -> None:
    path = files.samples(
        item("<video>\nWhat?", video="f.JPG"),
        item("<video>\nWhat?", video="v.mp4"),
        item("<video>\n<video>\nWhat?", video=["v.mp4", "w.mkv"]),
    )
    paths = [[names for _, names, _ in media_of(sample, tmp_path)] for sample in read_samples(path)]
    assert paths == [[["f.JPG"]], [["v.mp4"]], [["v.mp4"], ["w.mkv"]]]


def test_a_video_files_own_sound(files: Any, tmp_path: Path) -> None:
    path = files.samples(
        item("<video>\n<audio>\nWhat?", video="v.mp4"),
        item("<video>\nWhat?", video="v.mp4"),
        item("<video>\n<audio>\nWhat?", video="v.mp4", voice="a.wav"),
        item("<video>\n<video>\n<audio>\n<audio>\nWhat?", video=["v.mp4", "w.mp4"]),
        item("<video>\n<audio>\nWhat?", video="v.mp4", voice=None),
    )
    samples = read_samples(path)
    heard = [[m.paths[0].name for m in sample.media if m.kind == "audio"] for sample in samples]
    assert heard == [["v.mp4"], [], ["a.wav"], ["v.mp4", "w.mp4"], ["v.mp4"]]


def test_media_without_tags_are_kept_and_counted(
    files: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = item("What?", voice="a.wav", image="i.png", video="f.png")
    path = files.samples(bare, bare, item())
    with caplog.at_level(logging.WARNING, "data.samples"):
        samples = read_samples(path)
    assert [m.kind for m in samples[0].media] == ["video", "image", "audio"]
    assert not any(m.tagged for m in samples[0].media)
    assert [record.message for record in caplog.records] == [
        f"{path}: 2 of 3 samples have media without a tag: routed on, not spliced"
    ]


def test_media_root_and_prefix(files: Any, tmp_path: Path) -> None:
    path = files.samples(item("<image>\nWhat?", image="i.png"), item("<image>\nWhat?", image="/p/j.png"))
    read = read_samples(path, media_root=tmp_path / "r", media_prefix="/p")
    assert [sample.media[0].paths[0] for sample in read] == [tmp_path / "r/i.png", tmp_path / "r/j.png"]


FAULTS: list[tuple[Any, str]] = [
    ("text", "got 'text', expected an object"),
    (item(id=""), "id: got '', expected a text, a number or nothing"),
    (item(id=True), "id: got True, expected"),
    (item(id=["a"]), r"id: got \['a'\], expected"),
    ({"id": "x"}, "conversations: got None, expected a list of two turns"),
    (item() | {"conversations": []}, "conversations: got 0 turns, expected a list of two"),
    (item() | {"conversations": item()["conversations"] * 2}, "conversations: got 4 turns"),
    (
        item() | {"conversations": item()["conversations"][::-1]},
        'got \'gpt\' as the question, expected {"from": "human"',
    ),
    (item() | {"conversations": ["a", "b"]}, "conversations: got 'a' as the question"),
    (item(5), "question: got 5, expected a text"),
    (item(answer=None), "answer: got None, expected a text"),
    (item("<video>\n<audio>\n \n"), "question: is empty; write the question or remove the sample"),
    (item(answer=" \n"), "answer: is empty; write the answer"),
    (
        item("<video>\n<audio>\nIs it <foo>?"),
        "question: unknown tag <foo> in .*; known are <video> <image> <audio>",
    ),
    (item("<Video>\nWhat?"), "question: unknown tag <Video>"),
    (item("What?</s>"), "question: unknown tag </s>"),
    (item(answer="dog</s>"), "answer: unknown tag </s>"),
    (item(answer="<audio> dog"), "answer: got a media tag in '<audio> dog'; tags belong into the question"),
    (
        item("<image>\nWhat?"),
        "got 1 <image> in the question, 0 under 'image'; add the path or remove the tag",
    ),
    (item("<audio>\n<audio>\nWhat?"), "got 2 <audio> in the question, 1 under 'voice'"),
    (item("<audio>\nWhat?", audio="a.wav"), "the field for sound is 'voice', not 'audio'"),
    (item("<video>\n<video>\nWhat?"), "got 2 <video> in the question, 1 under 'video'"),
    (item("<audio>\nWhat?", video=["f.png"]), "got 1 <audio> in the question, 0 under 'voice'"),
    (item(video=[]), r"video: got \[\], expected paths; leave video out where there is none"),
    (item(video=""), "video: got '', expected paths"),
    (item(voice=3), "voice: got 3, expected paths"),
    (item(image=["i.png", None]), r"image: got \['i.png', None\], expected paths"),
    (item(video=["f.png", "v.mp4"]), "video: got frames and video files in one list"),
]


@pytest.mark.parametrize(("faulty", "message"), FAULTS)
def test_faults_name_file_index_and_id(files: Any, faulty: Any, message: str) -> None:
    path = files.samples(item(), faulty)
    with pytest.raises(InputError, match=message) as caught:
        read_samples(path)
    problem = caught.value.problems[0]
    assert (problem.source, problem.index) == (path, 1)
    assert problem.id == (None if isinstance(faulty, str) else str(faulty.get("id", 1)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "got a JSON dict, expected a list of samples"),
        ("[]", "got an empty list, expected a list of samples"),
        ('[{"id": ', "not valid JSON at line 1, column 9"),
        ("", "not valid JSON at line 1, column 1"),
    ],
)
def test_files_of_another_shape(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"{path}: {message}"):
        read_samples(path)


def test_duplicate_ids(files: Any) -> None:
    with pytest.raises(InputError) as caught:
        read_samples(files.samples(item(id="a"), item(), item(id="a"), item(id=1)))
    assert [(p.index, p.message) for p in caught.value.problems] == [
        (2, "id 'a' is also that of index 0; make ids unique"),
        (3, "id '1' is also that of index 1; make ids unique"),
    ]


def test_all_problems_are_reported_at_once(files: Any) -> None:
    items = [item(answer="") for _ in range(30)]
    with pytest.raises(InputError, match=r"30 problems \(the first 20 are shown\)") as caught:
        read_samples(files.samples(item(), *items))
    assert [p.index for p in caught.value.problems] == list(range(1, 31))


def test_a_sample_with_two_faults_reports_both(files: Any) -> None:
    with pytest.raises(InputError, match="2 problems"):
        read_samples(files.samples(item("", "", video="f.png")))


def test_dropping_tags_without_media(files: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = files.samples(item("<video>\n<audio>\nWhat <image> is it?", video="f.png"), item())
    with caplog.at_level(logging.WARNING, "data.samples"):
        first, second = read_samples(path, missing_media="drop")
    assert first.question == "<video>\nWhat  is it?"
    assert first.dropped == ("audio", "image")
    assert [m.kind for m in first.media] == ["video"]
    assert second.dropped == ()
    assert "1 of 2 samples have tags without media: left out" in caplog.text


def test_dropping_clips_without_sound(files: Any, tmp_path: Path) -> None:
    files.video("mute.mp4")
    files.video("loud.mp4", waveform=files.tone())
    files.sound("a.wav")
    path = files.samples(
        item("<video>\n<audio>\nWhat?", video="mute.mp4"),
        item("<video>\n<audio>\nWhat?", video="loud.mp4"),
        item("<video>\n<audio>\nWhat?", video="mute.mp4", voice="a.wav"),
        item("<audio>\n<audio>\nWhat?", voice=["mute.mp4", "a.wav"]),
        item("<audio>\nWhat?", voice="gone.wav"),
    )
    samples = read_samples(path, missing_media="drop")
    assert [sample.dropped for sample in samples] == [("audio",), (), (), ("audio",), ()]
    assert samples[0].question == "<video>\nWhat?"
    assert samples[3].media == (Media("audio", (tmp_path / "a.wav",), True),)
    assert read_samples(path)[0].question == "<video>\n<audio>\nWhat?"  # by default it stays, for check_media


def test_another_word_for_missing_media(files: Any) -> None:
    with pytest.raises(ValueError, match="missing_media: got 'ignore', expected 'error' or 'drop'"):
        read_samples(files.samples(item()), missing_media="ignore")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ITEMS = st.fixed_dictionaries(
    {"conversations": JSON | st.just(item()["conversations"])},
    optional={"id": JSON, "video": JSON, "voice": JSON, "image": JSON},
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ITEMS | JSON, max_size=3) | JSON)
def test_any_json_is_read_or_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "any.json"
    path.write_text(json.dumps(content))
    try:
        samples = read_samples(path)
    except InputError as error:
        assert all(problem.source == path for problem in error.problems)
    else:
        assert len(samples) == len(content)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ('{"note": "\\ud800"}', "half a surrogate pair"),
        ('{"note": ' + "[" * 80 + "]" * 80 + "}", "nested too deeply"),
        ('{"id": ' + "9" * 5000 + "}", "not usable JSON"),
        ("[" * 100_000, "nested too deeply|not usable JSON"),
    ],
)
def test_what_could_not_be_written_back_is_refused(tmp_path: Path, item: str, message: str) -> None:
    path = tmp_path / "samples.json"
    path.write_text(f"[{item}]")
    with pytest.raises(InputError, match=message):
        read_samples(path)
