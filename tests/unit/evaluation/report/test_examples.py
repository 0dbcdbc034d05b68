"""Which examples are shown, and their frames."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation.report.document import Gallery
from evaluation.report.examples import choose, examples_section
from evaluation.report.reading import read_all_results


def row(right: bool, expert: int) -> dict[str, Any]:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "yes"}]
    return {"conversations": turns, "text": "yes" if right else "no", "routing": {"task": expert}}


def test_failures_come_first_and_task_by_task() -> None:
    rows = [(0, place, row(False, 0)) for place in range(3)] + [(0, 3, row(True, 0)), (0, 4, row(True, 1))]
    rows += [(1, 0, row(False, 0)), (1, 1, row(False, 1)), (1, 2, row(True, 1))]
    places = [(task, place) for task, place, _ in choose(rows, 8)]
    assert places == [(1, 0), (0, 0), (1, 1), (0, 1), (0, 2), (0, 3), (1, 2), (0, 4)]
    assert [item[:2] for item in choose(rows, 4)] == [(1, 0), (0, 0), (1, 1), (0, 3)]
    assert [item[:2] for item in choose(rows, 1)] == [(1, 0)]
    assert choose(rows[3:5], 9) == rows[3:5]
    assert choose([], 4) == []


def gallery(folder: Path, most: int = 24, media: bool = True) -> Gallery:
    [results] = read_all_results([folder])
    found = [block for block in examples_section(results, most, media).blocks if isinstance(block, Gallery)]
    return found[0]


def test_what_an_example_tells(write_results: Callable[..., Path]) -> None:
    first, second, *right = gallery(write_results()).examples
    assert (first.verdict, first.task, first.expert) == ("wrong", "<b>Where</b> & | _", "Come")
    assert (second.task, second.expert, second.expected) == ("Come", "Come", "axe")
    assert [example.verdict for example in right] == ["right", "right"]
    assert first.question.startswith("<img src=x onerror") and "<video>" not in first.question
    assert first.scores and [cell.line for cell in first.scores.header] == [
        "task",
        "text",
        "video",
        "together",
    ]
    assert [cell.line for cell in first.scores.rows[1]] == ["<b>Where</b> & | _", "0.00", "\u2013", "0.00"]
    assert [cell.strong for cell in first.scores.rows[0]] == [False, True, True, True]
    assert len(first.frames) == 2 and all(len(frame) < 20_000 for frame in first.frames)


def test_without_media(write_results: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_results()
    assert not any(example.frames for example in gallery(folder, media=False).examples)
    (tmp_path / "data_AVQA" / "d_0.png").unlink()
    first, second, *_ = gallery(folder).examples
    assert not first.frames and "d_0.png" in first.without_frames and second.frames
    assert not examples_section(read_all_results([folder])[0], 0, True).blocks[1:]


def test_another_benchmark_file_shows_no_wrong_clip(
    write_results: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_results()
    file = tmp_path / "data_AVQA" / "test_0.json"
    file.write_text(file.read_text().replace("axe", "saw"))
    examples = gallery(folder).examples
    assert [example.without_frames for example in examples if example.expected == "axe"] == [
        "not in the benchmark's files"
    ]


@pytest.mark.parametrize("text", ["", "."])
def test_no_answer_is_called_so(write_results: Callable[..., Path], text: str) -> None:
    folder = write_results()
    file = folder / "task0_x_results.json"
    rows = json.loads(file.read_text())
    rows[1]["text"] = text
    file.write_text(json.dumps(rows))
    assert "failed" in {example.verdict for example in gallery(folder).examples}
