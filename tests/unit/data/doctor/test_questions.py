from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.doctor.findings import Level, Section
from data.doctor.questions import check_leaks, check_questions, read_questions, text_bound
from data.media_index import MediaIndex


def item(question: str, answer: str, frame: Path) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<video>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, "video": [str(frame)]}


@pytest.fixture
def benchmark(files: Any) -> Path:
    """Two tasks; test clip 0 of task a is a copy of a training clip."""
    frames = [files.picture(f"f{i}.png", grey=i) for i in range(6)]
    copy = files.picture("copy.png", grey=0)
    train, test = item("What?", "cat", frames[0]), item("What?", "cat", copy)
    files.samples(train, item("Which?", "dog", frames[1]), name="train_a.json")
    files.samples(test, item("Whose?", "cow", frames[2]), name="test_a.json")
    files.samples(item("Where?", "sea", frames[3]), item("Where?", "sea", frames[3]), name="train_b.json")
    files.samples(item("What?", "sea", frames[4]), item("When?", "now", frames[5]), name="test_b.json")
    tasks = [{"name": n, "train": f"train_{n}.json", "test": f"test_{n}.json"} for n in "ab"]
    path = files.path("benchmark.json")
    path.write_text(json.dumps({"name": "x", "tasks": tasks}))
    return path


def test_counts_answers_and_shared_texts(benchmark: Path) -> None:
    section = Section("x")
    questions = read_questions(section, benchmark)
    assert questions is not None and not section.findings
    check_questions(section, questions)
    _, first, second = section.table
    assert first == ["0 a", "2", "0", "2", "4", "3", "cat", "50 %", "1 (50 %)"]
    assert second[-1] == "1 (50 %)"
    assert section.facts["answers"]["b"]["train"] == {"sea": 2}
    messages = {finding.where: finding for finding in section.findings}
    assert messages["test"].level == Level.WARNING
    assert messages["test"].message.endswith("right for at most 75.0 %")
    assert messages["test"].cases == ("'What?': tasks 0, 1",)
    assert messages["questions"].message.startswith("1 occur more than once")


def test_test_clips_that_training_shows(benchmark: Path) -> None:
    questions = read_questions(Section("x"), benchmark)
    assert questions is not None
    by_path, by_content = Section("path"), Section("content")
    check_leaks(by_path, questions, None)
    assert not by_path.findings, "the copy has another name"
    check_leaks(by_content, questions, MediaIndex(None))
    [found] = by_content.findings
    assert found.message.startswith(
        "1 of 4 questions are about clips (same content) that training also shows, 1 of"
    )
    assert found.cases == ("test_a.json, index 0, id '0' shows a clip of train_a.json, index 0, id '0'",)


def test_every_fault_of_every_file_is_found(benchmark: Path) -> None:
    folder = benchmark.parent
    (folder / "train_a.json").write_text("[")
    (folder / "test_a.json").unlink()
    broken = json.loads((folder / "test_b.json").read_text())
    broken[0]["conversations"][1]["value"] = broken[1]["conversations"][1]["value"] = ""
    (folder / "test_b.json").write_text(json.dumps(broken))
    section = Section("x")
    questions = read_questions(section, benchmark)
    assert questions is not None
    assert {key: len(group) for key, group in questions.groups.items()} == {
        (0, "train"): 0,
        (1, "train"): 2,
        (1, "test"): 0,
    }
    messages = " | ".join(finding.message for finding in section.findings)
    assert all(part in messages for part in ("test: no such file", "not valid JSON", "answer: is empty"))
    assert section.count(Level.PROBLEM) == 3
    check_questions(section, questions)
    assert section.count(Level.WARNING) == 2, "no test questions in both tasks, no training questions in one"


def test_no_benchmark(tmp_path: Path) -> None:
    section = Section("x")
    assert read_questions(section, tmp_path / "none.json") is None
    assert section.count(Level.PROBLEM) == 1


def test_bound_of_routing_by_text() -> None:
    assert text_bound([["a", "b"], ["c", "d"]]) == {"macro": 100, "micro": 100}
    assert text_bound([["a", "a", "b"], ["a"]]) == {"macro": 100 * (1 / 3 + 1) / 2, "micro": 75}
    assert text_bound([["a"], []]) == {"macro": 100, "micro": 100}
