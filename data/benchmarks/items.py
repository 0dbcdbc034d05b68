"""Questions as annotation files hold them, read into one form and checked.

A parser gets the fields of one JSON object and returns an `Item`, or None for a question that is no part of
the benchmark; it raises ValueError with what was got and expected. `read_items` collects the faults of a
whole file, each with index and id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from data.benchmark import read_json
from data.problems import InputError, Problem, brief
from data.tags import remove_tags, tag_kinds, unknown_tags


@dataclass(frozen=True)
class Item:
    """One annotated question."""

    id: str | None  # as annotated, None where the file gives none
    task: str  # key of the benchmark's task
    clip: str  # name of the clip, also of its folder of frames below the media root
    question: str  # templates filled, no media tags
    answer: str
    synthetic: bool = False  # the clip is put together from others, not recorded
    labels: tuple[str, ...] = ()  # classes of the clip, for sessions


@dataclass(frozen=True)
class Fields:
    """The fields of one JSON object; a getter raises ValueError for a value of another kind."""

    values: Mapping[str, Any]

    def text(self, key: str) -> str:
        """A text that is not blank, without white space at its ends."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{key}: got {brief(value)}, expected a text")
        return value.strip()

    def id(self, key: str) -> str | None:
        """An id, a number or a text; None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
            raise ValueError(f"{key}: got {brief(value)}, expected a number or a text")
        return str(value)

    def labels(self, key: str) -> tuple[str, ...]:
        """A text or a list of texts; empty where there is none."""
        value = self.values.get(key)
        values = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise ValueError(f"{key}: got {brief(value)}, expected a text or a list of texts")
        return tuple(values)


# Fields of one object and the task that the file's name gives (None: the file holds all tasks) -> the item.
Parser = Callable[[Fields, str | None], Item | None]


def read_items(path: Path, parse: Parser, task: str | None, id_key: str) -> list[Item]:
    """The items of an annotation file, with unique ids, in the order of the file.

    An item without an id gets its position, `at5`. A question that was annotated twice about the same clip
    keeps both answers; the second has id `7-2` after `7`.

    Raises:
        InputError: with every fault found, each naming file, index and id.
    """
    content = read_json(path)
    if not isinstance(content, list) or not content:
        got = "an empty list" if content == [] else f"a JSON {type(content).__name__}"
        raise InputError([Problem(path, f"got {got}, expected a list of annotated questions")])
    problems: list[Problem] = []
    found: dict[str, Item] = {}
    asked: dict[str, tuple[str, str, int]] = {}  # id as annotated -> clip, question, times met
    for index, values in enumerate(content):
        name = None
        try:
            if not isinstance(values, dict):
                raise ValueError(f"got {brief(values)}, expected an object")
            name = Fields(values).id(id_key)
            item = parse(Fields(values), task)
            if item is None:
                continue
            _check(item)
            unique = f"at{index}" if item.id is None else item.id
            clip, question, times = asked.get(unique, (item.clip, item.question, 0))
            if (clip, question) != (item.clip, item.question):
                raise ValueError("the id is also that of another question; make ids unique")
            asked[unique] = (clip, question, times + 1)
            unique += f"-{times + 1}" if times else ""
            if unique in found:
                raise ValueError(f"the id {unique!r} is given twice; make ids unique")
            found[unique] = replace(item, id=unique)
        except ValueError as error:
            problems.append(Problem(path, str(error), index, name))
    if problems:
        raise InputError(problems)
    return list(found.values())


def _check(item: Item) -> None:
    """Raise ValueError for what a sample file cannot hold."""
    for what, text in (("question", item.question), ("answer", item.answer)):
        if tags := unknown_tags(text) or [f"<{kind}>" for kind in tag_kinds(text)]:
            raise ValueError(f"{what}: got {tags[0]} in {brief(text)}, expected plain text; correct it")
    if item.clip in ("", ".", "..") or "/" in item.clip or "\0" in item.clip:
        raise ValueError(f"clip: got {brief(item.clip)}, expected the name of a video")


def from_sample(fields: Fields, task: str | None) -> Item:
    """The item of a published sample file: question and answer of the turns, clip from the frames' folder."""
    if task is None:
        raise ValueError("got a sample of no known task; name the file SPLIT_TASK.json")
    turns = fields.values.get("conversations")
    if not isinstance(turns, list) or len(turns) != 2 or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"conversations: got {brief(turns)}, expected two turns, human then gpt")
    question, answer = (Fields(turn).text("value") for turn in turns)
    video = fields.values.get("video")
    first = video[0] if isinstance(video, list) and video else video
    if not isinstance(first, str) or len(PurePosixPath(first).parts) < 2:
        raise ValueError(f"video: got {brief(video)}, expected paths CLIP/frame_001.jpg, ...")
    return Item(
        fields.id("id"),
        task,
        PurePosixPath(first).parent.name,
        remove_tags(question).strip(),
        answer,
        labels=fields.labels("label"),
    )
