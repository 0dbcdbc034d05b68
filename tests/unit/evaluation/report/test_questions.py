"""Questions read quickly are the questions that data/samples.py reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.benchmark import read_benchmark
from data.samples import read_samples
from evaluation.report.questions import Questions, read_questions


def item(question: str, **media: Any) -> dict[str, Any]:
    return {
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": "axe"}],
        **media,
    }


def questions(folder: Path, test: Any, **more: Any) -> Questions:
    folder.mkdir(exist_ok=True)
    (folder / "test.json").write_text(json.dumps(test))
    content = {"name": "B", "tasks": [{"name": "t", "test": "test.json"}], **more}
    (folder / "b.json").write_text(json.dumps(content))
    about = {"benchmark_file": str(folder / "b.json"), "split": "test"}
    return read_questions({"tasks": ["t"], "provenance": about})


@pytest.mark.parametrize("root", [None, "media"])
def test_as_samples_are_read(tmp_path: Path, root: str | None) -> None:
    (tmp_path / "media").mkdir()
    test = [
        item("<video>\n<audio>\n What? ", video=["a/0.jpg", "a/1.jpg"], voice="a.wav") | {"id": 7},
        item("<video>\nWhere?", video="b.mp4"),
        item("<image>\nWhich?", image=["c.png"]),
    ]
    found = questions(tmp_path, test, **({"media_root": root} if root else {}))
    benchmark = read_benchmark(tmp_path / "b.json")
    samples = read_samples(tmp_path / "test.json", media_root=benchmark.media_root)
    assert found.train == ((),) and found.files == (tmp_path / "test.json",) and not found.reason
    for asked, sample in zip(found.test[0], samples, strict=True):
        assert (asked.id, asked.text, asked.answer) == (sample.id, sample.question_text, sample.answer)
        files = [path for clip in asked.clips for path in clip[1:]]
        assert sorted(files) == sorted(str(path) for media in sample.media for path in media.paths)


@pytest.mark.parametrize("test", [[{}], [3], {"a": 1}, [item("x") | {"conversations": [1, 2]}], 5])
def test_files_of_another_shape_give_a_reason(tmp_path: Path, test: Any) -> None:
    found = questions(tmp_path / "x", test)
    assert found.benchmark is None and "is not as scripts/doctor.py wants it" in found.reason


def test_no_benchmark_gives_a_reason(tmp_path: Path) -> None:
    for about in ({}, {"benchmark_file": "b.json", "split": "half"}):
        found = read_questions({"tasks": ["t"], "provenance": about})
        assert found.reason == "the summary names no benchmark file and split"
    found = read_questions({"tasks": ["t"], "provenance": {"benchmark_file": str(tmp_path / "no.json")}})
    assert "no.json: no such file" in found.reason
