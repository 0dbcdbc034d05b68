"""Benchmark files: a name and the ordered tasks, each with its train, val and test sample files.

    {"name": "AVQA", "media_root": "media", "media_prefix": "/path/to/dataset_QA",
     "tasks": [{"name": "Come", "train": "train_Come.json", "val": "val_Come.json", "test": "test_Come.json",
                "results": "task0_come"}]}

`media_root`, `media_prefix`, `results` and any two of train, val, test may be left out. Paths are relative to
the benchmark file, or absolute; the sample files may lie anywhere. The position of a task is its id. A text
`protocol` may say in a line what is asked, for reports.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.problems import InputError, Problem, brief
from model.moe.json_text import parse_json, strange_part

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Task:
    """One task of a benchmark."""

    id: int  # position in the benchmark, also the id of its expert and anchor
    name: str  # as shown in reports
    train: Path | None  # sample files; None where the benchmark has none
    val: Path | None
    test: Path | None
    results: str  # stem of its results file: "task0_come" writes task0_come_results.json

    @property
    def results_file(self) -> str:
        """Name of its results file."""
        return f"{self.results}_results.json"


@dataclass(frozen=True)
class Benchmark:
    """An ordered list of tasks."""

    name: str
    tasks: tuple[Task, ...]
    media_root: Path | None  # folder of the media, None: each sample file's own folder
    path: Path  # the benchmark file
    media_prefix: str | None = None  # part of absolute paths that stands for media_root, see media_paths.py
    protocol: str | None = None  # which questions these are, for reports; None: the file does not say

    def files(self, split: str) -> list[Path]:
        """The sample files of a split, of the tasks that have one."""
        found = [getattr(task, split) for task in self.tasks]
        return [path for path in found if path is not None]


def read_json(path: Path) -> Any:
    """Content of a JSON file; raises InputError naming the file where it cannot be read."""
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError([Problem(path, "no such file; check the path")]) from None
    except json.JSONDecodeError as error:
        message = (
            f"not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}; is the file complete?"
        )
        raise InputError([Problem(path, message)]) from None
    except UnicodeDecodeError as error:
        raise InputError([Problem(path, f"not UTF-8 text at byte {error.start}; save it as UTF-8")]) from None
    except ValueError as error:
        raise InputError([Problem(path, f"not usable JSON: {error}")]) from None
    except OSError as error:
        raise InputError([Problem(path, f"cannot be read: {error.strerror or error}")]) from None


def read_benchmark(path: str | Path) -> Benchmark:
    """Read and check a benchmark file.

    Raises:
        InputError: with every fault found: wrong shape, unknown key, missing sample file, repeated name; and,
            as `readable`, the benchmark as far as it can be read.
    """
    path = Path(path)
    content = read_json(path)
    problems: list[Problem] = []

    def fault(message: str, index: int | None = None, name: str | None = None) -> None:
        problems.append(Problem(path, message, index, name))

    if strange := strange_part(content):
        raise InputError([Problem(path, f"holds {strange}; correct it")])
    if not isinstance(content, dict):
        got = type(content).__name__
        raise InputError(
            [Problem(path, f'got a JSON {got}, expected an object {{"name": ..., "tasks": [...]}}')]
        )
    for key in content.keys() - {"name", "protocol", "media_root", "media_prefix", "tasks"}:
        fault(f"unknown key {key!r}; known are name, protocol, media_root, media_prefix, tasks")
    name = content.get("name")
    if not isinstance(name, str) or not name.strip():
        fault(f"name: got {brief(name)}, expected the benchmark's name")
    protocol = _optional_text(content, "protocol", fault)
    media_root = _optional_text(content, "media_root", fault)
    media_prefix = _optional_text(content, "media_prefix", fault)
    if media_prefix is not None and media_root is None:
        fault("media_prefix without media_root; add the folder that it stands for")
    root = None if media_root is None else path.parent / media_root
    if root is not None and not root.is_dir():
        fault(f"media_root: no such folder {root}")
    items = content.get("tasks")
    if not isinstance(items, list) or not items:
        fault(f"tasks: got {brief(items)}, expected a list with at least one task")
        items = []
    tasks = [_task(path.parent, number, item, fault) for number, item in enumerate(items)]
    for field in ("name", "results"):
        values = [getattr(task, field) for task in tasks]
        for number, value in enumerate(values):
            if value in values[:number]:
                fault(f"{field} {value!r} is also that of task {values.index(value)}; make it unique", number)
    benchmark = Benchmark(str(name), tuple(tasks), root, path, media_prefix, protocol)
    if problems:
        raise InputError(problems, readable=[benchmark])
    return benchmark


def _optional_text(content: dict[str, Any], key: str, fault: Any, **where: Any) -> str | None:
    value = content.get(key)
    if value is None or (isinstance(value, str) and value):
        return value
    fault(f"{key}: got {brief(value)}, expected a text or nothing", **where)
    return None


def _task(folder: Path, number: int, item: Any, fault: Any) -> Task:
    if not isinstance(item, dict):
        fault(f'got {brief(item)}, expected an object {{"name": ..., "train": ...}}', number)
        return Task(number, f"(task {number})", None, None, None, f"(task {number})")
    name = item.get("name")
    if not isinstance(name, str) or not name.strip():
        fault(f"name: got {brief(name)}, expected the task's name", number)
        name = f"(task {number})"
    for key in item.keys() - {"name", "results", *SPLITS}:
        fault(f"unknown key {key!r}; known are name, train, val, test, results", number, name)
    files: dict[str, Path | None] = {}
    for split in SPLITS:
        text = _optional_text(item, split, fault, index=number, name=name)
        files[split] = None if text is None else folder / text
        if text is not None and not (folder / text).is_file():
            fault(f"{split}: no such file {folder / text}", number, name)
    if not any(item.get(split) for split in SPLITS):
        fault("has no sample file; give at least one of train, val, test", number, name)
    results = _optional_text(item, "results", fault, index=number, name=name)
    if results is None:
        results = f"task{number}_{'_'.join(name.lower().split())}"
    if "/" in results or results.startswith("."):
        fault(
            f"results: got {results!r}, expected a plain file stem such as 'task{number}_come'", number, name
        )
    return Task(number, name, files["train"], files["val"], files["test"], results)
