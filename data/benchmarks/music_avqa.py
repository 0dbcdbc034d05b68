"""Questions of MUSIC-AVQA, versions 1 and 2, from which several benchmarks are made.

    {"video_id": "00000093", "question_id": 12, "type": "[\\"Audio\\", \\"Counting\\"]",
     "question_content": "How many <Object> ...", "templ_values": "[\\"cello\\"]", "anser": "one"}

`type` and `templ_values` are JSON lists in a text; the values fill the `<...>` of the question in order; the
key of the answer is spelt `anser` (`answer` is taken too). Version 2 adds questions about further recorded
clips, which may have no `question_id`. Clips whose names begin with a letter code and hold eight digits are
put together from others (`synthetic`): another sound under a video, or two videos side by side.

Sources: MUSIC-AVQA (Li et al., CVPR 2022), MUSIC-AVQA v2.0 (Liu et al., WACV 2024).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from data.benchmarks.items import Fields, Item, Parser
from data.benchmarks.recipe import Recipe, TaskPlan
from data.problems import brief

MODALITIES = ("Audio", "Visual", "Audio-Visual")
KINDS = ("Counting", "Existential", "Location", "Comparative", "Temporal")
FILES = {
    split: (f"avqa-{split}.json", f"{split}_balance.json", f"{split}_bias.json")
    for split in ("train", "val", "test")
}

BY_KIND = tuple(TaskPlan(kind, kind) for kind in KINDS)

_SLOT = re.compile(r"<[^<>]*>")
_SYNTHETIC = re.compile(r"(?:esa|eva|evv|sa|va|vv)\d{8}")


def music_recipe(
    title: str,
    tasks: tuple[TaskPlan, ...],
    choose: Callable[[str, str], str | None],
    known: Mapping[str, tuple[int | None, ...]],
) -> Recipe:
    """A benchmark of these tasks; `choose(modality, kind)` gives a question's task, None for none of them."""
    parse = _make_parser(choose)
    return Recipe(title=title, tasks=tasks, parse=parse, id_key="question_id", whole_files=FILES, known=known)


def _make_parser(choose: Callable[[str, str], str | None]) -> Parser:
    """A parser with `choose(modality, kind)`, which gives the key of the task, or None for no task."""

    def parse(fields: Fields, task: str | None) -> Item | None:
        modality, kind = _type(fields)
        key = choose(modality, kind)
        if task is not None and key != task:
            got = f"{modality}, {kind}"
            raise ValueError(f"type: got {got!r} in the file of {task!r}; move the question")
        if key is None or fields.values.get("question_deleted"):
            return None
        clip = fields.text("video_id")
        return Item(
            fields.id("question_id"),
            key,
            clip,
            fill(fields.text("question_content"), _list(fields, "templ_values")),
            fields.text("anser" if "anser" in fields.values else "answer"),
            synthetic=_SYNTHETIC.fullmatch(clip) is not None,
            labels=fields.labels("label"),
        )

    return parse


def fill(template: str, values: list[str]) -> str:
    """A template with its slots filled in order. Raises ValueError unless there is one value per slot."""
    slots = _SLOT.findall(template)
    if len(slots) != len(values):
        raise ValueError(
            f"templ_values: got {len(values)} values for the {len(slots)} slots of {brief(template)}, "
            "expected one each"
        )
    rest = iter(values)
    return _SLOT.sub(lambda _: next(rest), template)


def _type(fields: Fields) -> tuple[str, str]:
    pair = _list(fields, "type")
    if len(pair) != 2 or pair[0] not in MODALITIES or pair[1] not in KINDS:
        known = f"one of {', '.join(MODALITIES)} and one of {', '.join(KINDS)}"
        raise ValueError(f"type: got {brief(pair)}, expected {known}")
    return pair[0], pair[1]


def _list(fields: Fields, key: str) -> list[str]:
    """A list of texts, given as such or as JSON in a text."""
    value = fields.values.get(key)
    try:
        texts = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        texts = None
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"{key}: got {brief(value)}, expected a JSON list of texts")
    return texts
