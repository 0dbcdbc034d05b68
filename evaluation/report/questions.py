"""The questions of a benchmark as the report needs them: texts, answers, and which clip each is about.

Reads tens of thousands of questions in a second, since media paths are joined but not followed:
data/samples.py checks them when an evaluation reads the same files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.benchmark import SPLITS, Benchmark, read_benchmark, read_json
from data.files import sha256_file
from data.problems import InputError
from data.samples import FIELDS
from data.tags import remove_tags

Clip = tuple[str, ...]  # a field of a sample and the files it names


@dataclass(frozen=True)
class Asked:
    """One question."""

    id: str
    text: str  # without media tags
    answer: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class Questions:
    """A benchmark's questions as far as they can be read here."""

    benchmark: Benchmark | None = None
    train: tuple[tuple[Asked, ...], ...] = ()  # task after task; empty where a task has no such file
    test: tuple[tuple[Asked, ...], ...] = ()  # of the split that was evaluated
    files: tuple[Path | None, ...] = ()  # that the test questions stand in
    reason: str = ""  # why there are none
    changed: tuple[str, ...] = ()  # test files that are not those that were evaluated


def read_questions(summary: Mapping[str, Any]) -> Questions:
    """The questions that an evaluation answered, and those of its training."""
    about = summary["provenance"]
    named, split = about.get("benchmark_file"), about.get("split", "test")
    if not named or split not in SPLITS:
        return Questions(reason="the summary names no benchmark file and split")
    try:
        benchmark = read_benchmark(named)
        if [task.name for task in benchmark.tasks] != summary["tasks"]:
            return Questions(reason=f"{named} names other tasks than the evaluation had")
        files = tuple(getattr(task, split) for task in benchmark.tasks)
        train = tuple(_read(task.train, benchmark) for task in benchmark.tasks)
        test = tuple(_read(file, benchmark) for file in files)
    except InputError as error:
        return Questions(reason=f"the benchmark cannot be read here: {error.problems[0]}")
    except (KeyError, TypeError, IndexError, AttributeError):
        return Questions(reason=f"a sample file of {named} is not as scripts/doctor.py wants it")
    known = about.get("data") or {}
    there = [file for file in files if file is not None and known.get(file.name)]
    changed = tuple(file.name for file in there if sha256_file(file) != known[file.name])
    return Questions(benchmark, train, test, files, changed=changed)


def _read(file: Path | None, benchmark: Benchmark) -> tuple[Asked, ...]:
    if file is None:
        return ()
    root = str(benchmark.media_root or file.parent)
    return tuple(_asked(index, item, root) for index, item in enumerate(read_json(file)))


def _asked(index: int, item: Mapping[str, Any], root: str) -> Asked:
    question, answer = item["conversations"]
    found = item.get("id")
    clips = [(field, *_paths(item[field], root)) for field in FIELDS if item.get(field)]
    text = remove_tags(question["value"]).strip()
    return Asked(str(index if found is None else found), text, answer["value"], tuple(clips))


def _paths(value: str | list[str], root: str) -> list[str]:
    return [os.path.join(root, text) for text in ([value] if isinstance(value, str) else value)]
