from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.benchmark import read_benchmark
from data.problems import InputError


def write(
    folder: Path, content: Any, files: tuple[str, ...] = ("train.json", "val.json", "test.json")
) -> Path:
    for name in files:
        (folder / name).write_text("[]")
    path = folder / "bench.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def tasks(*items: dict[str, Any]) -> dict[str, Any]:
    return {"name": "B", "tasks": list(items)}


def test_reading(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/test.json").write_text("[]")
    first = {
        "name": "Come",
        "train": "train.json",
        "val": "val.json",
        "test": "test.json",
        "results": "task0_x",
    }
    second = {"name": "Where To", "test": str(tmp_path / "other/test.json")}
    content = {"name": "B", "media_root": "media", "media_prefix": "/p", "tasks": [first, second]}
    assert read_benchmark(write(tmp_path, content)).protocol is None
    benchmark = read_benchmark(write(tmp_path, content | {"protocol": "half of val"}))
    assert benchmark.protocol == "half of val"
    assert benchmark.name == "B"
    assert benchmark.media_root == tmp_path / "media"
    assert benchmark.media_prefix == "/p"
    assert benchmark.path == tmp_path / "bench.json"
    come, where = benchmark.tasks
    assert (come.id, come.name, come.results) == (0, "Come", "task0_x")
    assert (come.train, come.val, come.test) == tuple(
        tmp_path / f"{s}.json" for s in ("train", "val", "test")
    )
    assert (where.id, where.results) == (1, "task1_where_to")
    assert (where.train, where.val, where.test) == (None, None, tmp_path / "other/test.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"bench.json: not valid JSON at line 1, column 2"),
        ([], r"bench.json: got a JSON list, expected an object"),
        ({"tasks": [{"name": "A", "test": "test.json"}]}, "name: got None, expected the benchmark's name"),
        ({"name": "B"}, "tasks: got None, expected a list with at least one task"),
        ({"name": "B", "tasks": []}, r"tasks: got \[\], expected"),
        (
            tasks({"name": "A", "test": "test.json"}) | {"taks": 1},
            "unknown key 'taks'; known are name, protocol, media_root",
        ),
        (
            tasks({"name": "A", "tets": "test.json"}),
            "index 0, id 'A': unknown key 'tets'; known are name, train",
        ),
        (tasks({"name": "A"}), "index 0, id 'A': has no sample file"),
        (tasks({"test": "test.json"}), "index 0: name: got None, expected the task's name"),
        (tasks("A"), "index 0: got 'A', expected an object"),  # type: ignore[arg-type]
        (tasks({"name": "A", "test": "gone.json"}), "index 0, id 'A': test: no such file .*gone.json"),
        (tasks({"name": "A", "test": 3}), "index 0, id 'A': test: got 3, expected a text or nothing"),
        (
            tasks({"name": "A", "test": "test.json", "results": "../x"}),
            "results: got '../x', expected a plain",
        ),
        (
            tasks({"name": "A", "test": "test.json"}) | {"protocol": ["x"]},
            r"protocol: got \['x'\], expected a text or nothing",
        ),
        (
            tasks({"name": "A", "test": "test.json"}) | {"media_root": "gone"},
            "media_root: no such folder .*gone",
        ),
        (
            tasks({"name": "A", "test": "test.json"}) | {"media_prefix": "/p"},
            "media_prefix without media_root",
        ),
    ],
)
def test_faults(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_benchmark(write(tmp_path, content))


def test_repeated_names_and_results(tmp_path: Path) -> None:
    same = {"name": "A", "test": "test.json", "results": "r"}
    with pytest.raises(InputError) as caught:
        read_benchmark(write(tmp_path, tasks(same, same)))
    messages = [problem.message for problem in caught.value.problems]
    assert messages == [
        "name 'A' is also that of task 0; make it unique",
        "results 'r' is also that of task 0; make it unique",
    ]


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 problems") as caught:
        read_benchmark(write(tmp_path, tasks({"name": "A"}, {"name": "B", "val": "gone.json"})))
    assert [problem.index for problem in caught.value.problems] == [0, 1]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.json: no such file"):
        read_benchmark(tmp_path / "gone.json")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_benchmark(tmp_path)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_bytes(b'{"name": "\xff"}')
    with pytest.raises(InputError, match="not UTF-8 text at byte 10"):
        read_benchmark(path)
