"""From annotation files to a benchmark folder: sample files per task and split, and the benchmark file.

Media of a clip lie below the media root, which only the benchmark file names:

    CLIP/frame_001.jpg ... CLIP/frame_008.jpg, CLIP/audio.wav      (media "frames", as published)
    CLIP.mp4                                                       (media "videos")
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from data.benchmark import SPLITS, read_benchmark, read_json
from data.benchmarks.items import Item, read_items
from data.benchmarks.recipe import Recipe, Source, TaskPlan, find_sources
from data.files import write_json_atomic
from data.problems import InputError, Problem, brief

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choices:
    """What a user decides about a benchmark."""

    media_root: Path | None = None  # None: the folder `media` of the benchmark
    media: Literal["frames", "videos"] = "frames"
    frames: int = 8  # frames of a clip, for media "frames"
    synthetic: bool = False  # questions about synthetic clips too
    drop_missing: bool = False  # leave out questions about clips that have no media
    sessions: Path | None = None  # JSON list of steps, each a list of labels: one task per type and step

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= 999:
            raise ValueError(f"frames: got {self.frames}, expected 1 to 999")


@dataclass(frozen=True)
class Count:
    """Questions of one task and split."""

    task: str
    split: str
    written: int
    dropped: int  # left out for want of media
    known: int | None  # as published, None where that says nothing about these choices


def build(recipe: Recipe, name: str, annotations: Path, out: Path, choices: Choices) -> list[Count]:
    """Write OUT/NAME.json, its sample files and aliases; return what was counted, task by task.

    Raises:
        InputError: annotations that are missing or faulty, or a task without a single question.
    """
    items = read_annotations(recipe, annotations)
    if not choices.synthetic:
        items = {split: [item for item in every if not item.synthetic] for split, every in items.items()}
    tasks = recipe.tasks
    steps = [] if choices.sessions is None else read_steps(choices.sessions)
    if steps:
        tasks, items = into_sessions(tasks, items, steps)
    root = out / "media" if choices.media_root is None else choices.media_root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    comparable = not choices.synthetic and choices.sessions is None
    counts, entries = [], []
    for number, task in enumerate(tasks):
        entry: dict[str, str] = {"name": task.name}
        for split in items:
            own = [item for item in items[split] if item.task == task.key]
            samples = [sample(item, choices) for item in own]
            if choices.drop_missing:
                samples = [one for one in samples if has_media(one, root)]
            known = recipe.known[split][number] if comparable and split in recipe.known else None
            counts.append(Count(task.name, split, len(samples), len(own) - len(samples), known))
            if samples:
                entry[split] = f"{split}_{task.key}.json"
                write_json_atomic(out / entry[split], samples)
        if len(entry) == 1:
            raise InputError([Problem(annotations, f"holds no question of task {task.name!r}")])
        entries.append(entry | {"results": f"task{number}_{task.name.lower().replace(' ', '_')}"})
    media_root = "media" if choices.media_root is None else str(root)
    title = recipe.title + ("" if choices.sessions is None else f"-{len(tasks)}-sessions")
    content = {
        "name": title,
        "protocol": protocol(recipe, annotations, choices, counts, len(steps)),
        "media_root": media_root,
        "tasks": entries,
    }
    write_json_atomic(out / f"{name}.json", content)
    accepted = out / f"{name}.aliases.json"
    if recipe.aliases and not accepted.exists():  # one that is there may have been edited
        write_json_atomic(accepted, recipe.aliases)
    read_benchmark(out / f"{name}.json")
    return counts


def protocol(recipe: Recipe, annotations: Path, choices: Choices, counts: Sequence[Count], steps: int) -> str:
    """One line on what a report's numbers are about; papers differ in this by tens of points.

    steps: of the sessions, 0 without them.
    """
    parts = [
        f"{recipe.title}, {len(recipe.tasks)} question types",
        f"test is {test_files(recipe, annotations)}",
        f"--videos {'all, synthetic ones too' if choices.synthetic else 'real'}",
    ]
    if choices.drop_missing:
        tested = [count for count in counts if count.split == "test"]
        dropped = sum(count.dropped for count in tested)
        known = dropped + sum(count.written for count in tested)
        parts.append(f"--drop_missing left out {dropped} of {known} test questions")
    if steps:
        parts.append(
            f"{len(recipe.tasks) * steps} sessions, {steps} for each question type; what AVQACL calls MA, "
            "the mean over sessions of the accuracy on all seen so far, is the column Avg"
        )
    return "; ".join(parts)


def test_files(recipe: Recipe, annotations: Path) -> str:
    """Where the test questions were read, for the protocol."""
    sources = find_sources(recipe, annotations)
    if "test" not in sources:
        halved = recipe.halve_val and "val" in sources
        return f"half of val, by clip ({_names(sources['val'])})" if halved else "not there"
    return _names(sources["test"])


def _names(sources: Sequence[Source]) -> str:
    first = sources[0]
    return first.path.name if first.task is None else first.path.name.replace(first.task, "TASK")


def read_annotations(recipe: Recipe, folder: Path) -> dict[str, list[Item]]:
    """Split -> the items of all tasks, as annotated; splits without a file are left out.

    Raises:
        InputError: no file, or faulty ones (every fault of every file).
    """
    items: dict[str, list[Item]] = {}
    problems: list[Problem] = []
    for split, sources in find_sources(recipe, folder).items():
        items[split] = []
        for source in sources:
            try:
                items[split] += read_items(source.path, recipe.parse, source.task, recipe.id_key)
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(problems)
    if recipe.halve_val and "val" in items and "test" not in items:
        log.warning("%s: no test file, so half of the clips of val are the test", folder)
        both = items["val"]
        items["val"] = [item for item in both if not in_test_half(item.clip)]
        items["test"] = [item for item in both if in_test_half(item.clip)]
    return items


def in_test_half(clip: str) -> bool:
    """Whether a clip of val is one for the test: a coin tossed with the clip's name, the same everywhere."""
    return hashlib.sha256(clip.encode()).digest()[0] % 2 == 1


def sample(item: Item, choices: Choices) -> dict[str, Any]:
    """A question in the form of sample files (data/samples.py), media paths relative to the media root."""
    turns = [("human", f"<video>\n<audio>\n{item.question}"), ("gpt", item.answer)]
    written: dict[str, Any] = {
        "id": item.id,
        "conversations": [{"from": speaker, "value": value} for speaker, value in turns],
    }
    if choices.media == "videos":
        return written | {"video": f"{item.clip}.mp4"}
    frames = [f"{item.clip}/frame_{number:03d}.jpg" for number in range(1, choices.frames + 1)]
    return written | {"video": frames, "voice": [f"{item.clip}/audio.wav"]}


def has_media(written: dict[str, Any], root: Path) -> bool:
    """Whether all media files of a sample exist."""
    video = written["video"]
    paths = [video] if isinstance(video, str) else [*video, *written["voice"]]
    return all((root / path).is_file() for path in paths)


def read_steps(path: Path) -> list[list[str]]:
    """The steps of a session file: a list of lists of labels. Raises InputError."""
    steps = read_json(path)
    good = isinstance(steps, list) and steps and all(isinstance(step, list) and step for step in steps)
    if not good or not all(isinstance(label, str) for step in steps for label in step):
        raise InputError([Problem(path, f"got {brief(steps)}, expected a list of lists of labels")])
    return steps


def into_sessions(
    tasks: Sequence[TaskPlan], items: dict[str, list[Item]], steps: Sequence[Sequence[str]]
) -> tuple[tuple[TaskPlan, ...], dict[str, list[Item]]]:
    """The class-incremental variant: every task divided into steps, learned task by task, step by step.

    A question belongs to each step that holds one of its clip's labels, as in AVQACL: to several, or to none.

    Raises:
        ValueError: no question has a label.
    """
    if not any(item.labels for every in items.values() for item in every):
        raise ValueError(
            "sessions need annotations with a field 'label', as in the files per task of AVQACL; got none"
        )
    numbered = list(enumerate(map(set, steps), start=1))
    plans = [TaskPlan(f"{task.key}_{step}", f"{task.name} {step}") for task in tasks for step, _ in numbered]
    divided = {
        split: [
            replace(item, task=f"{item.task}_{step}")
            for item in every
            for step, labels in numbered
            if labels.intersection(item.labels)
        ]
        for split, every in items.items()
    }
    return tuple(plans), divided


def differences(title: str, counts: Sequence[Count]) -> list[str]:
    """A line for every count (before media were looked for) that is not the known one."""
    return [
        f"{title}, task {count.task}, {count.split}: {count.written + count.dropped} questions, known are "
        f"{count.known}; another version of the annotations, or a part of them"
        for count in counts
        if count.known not in (None, count.written + count.dropped)
    ]


def table(counts: Sequence[Count]) -> list[str]:
    """Lines of a table: questions per task and split, and the known number where there is one."""
    splits = [split for split in SPLITS if any(count.split == split for count in counts)]
    width = max(len(count.task) for count in counts) + 2
    rows: dict[str, dict[str, str]] = {}
    for count in counts:
        dropped = f" -{count.dropped}" if count.dropped else ""
        known = "" if count.known is None else f" (known {count.known})"
        rows.setdefault(count.task, {})[count.split] = f"{count.written}{dropped}{known}"
    cells = {"task": dict(zip(splits, splits, strict=True)), **rows}
    return [
        f"{task:<{width}}" + "".join(f"{row[split]:>24}" for split in splits) for task, row in cells.items()
    ]
