"""The four tasks of the sample data: how they ask, which clips they may ask about, what the answer is."""

from __future__ import annotations

from .kinds import CATEGORIES, named_kinds
from .places import named_places
from .scene import Scene

TASKS = ("Come", "Happening", "Where", "Which")

_COME = (
    "What does the sound in this clip come from?",
    "Where does the sound in this clip come from?",
    "What is the main source of the sound in this clip?",
    "Which thing is the main source of the sound in this clip?",
    "Which thing does the sound in this clip come from?",
    "What is it that makes the sound in this clip?",
    "What can be heard in this clip?",
)
_HAPPENING = (
    "What is happening in this clip?",
    "What happens in this clip?",
    "What is going on in this clip?",
    "What is taking place in this clip?",
    "Which event does this clip show?",
    "Which action takes place in this clip?",
)
_WHERE = (
    "Where does this clip take place?",
    "Where was this clip filmed?",
    "Where is the scene of this clip?",
    "In which place was this clip filmed?",
    "Which place does this clip show?",
    "At what kind of place does this clip play?",
)
# The last wording is the one for clips in which two things sound and only one of them is seen.
_WHICH_HEARD = (
    "Which {category} makes the sound in this clip?",
    "Which {category} is the main source of the sound in this clip?",
    "Which {category} does the sound in this clip come from?",
    "What kind of {category} makes the sound in this clip?",
    "Which {category} in the picture makes the sound in this clip?",
)
_WHICH_SEEN = (
    "Which {category} can be seen in this clip?",
    "Which {category} is in the picture of this clip?",
    "What kind of {category} does the picture of this clip show?",
)


def ask(task: str, scene: Scene, variant: int, seen: bool = False) -> tuple[str, str]:
    """Question and answer of a task about a scene, in one of its wordings.

    Args:
        task: one of TASKS.
        scene: of named kinds and a named place.
        variant: any number; picks the wording.
        seen: for Which, ask for the thing in the picture instead of the one that sounds.

    Raises:
        ValueError: the task is unknown, or the question has no single answer in this scene.
    """
    if task == "Come":
        return _pick(_COME, variant), scene.heard[0].kind.name
    if task == "Where":
        return _pick(_WHERE, variant), scene.place.name
    if task == "Happening":
        if scene.clip_type in "CD":
            raise ValueError(f"Happening has no single answer in a clip of type {scene.clip_type}")
        return _pick(_HAPPENING, variant), scene.heard[0].kind.happening
    if task != "Which":
        raise ValueError(f"task is {task!r}, expected one of {TASKS}")
    if not seen:
        kind = scene.heard[0].kind
        wordings = _WHICH_HEARD[-1:] if scene.clip_type == "D" else _WHICH_HEARD
        return _pick(wordings, variant).format(category=kind.category), kind.name
    kinds = {thing.kind for thing in scene.seen}
    if len(kinds) != 1:
        raise ValueError(f"{len(kinds)} kinds are seen in a clip of type {scene.clip_type}, expected 1")
    kind = kinds.pop()
    return _pick(_WHICH_SEEN, variant).format(category=kind.category), kind.name


def _pick(wordings: tuple[str, ...], variant: int) -> str:
    return wordings[variant % len(wordings)]


def task_phrasings() -> dict[str, tuple[str, ...]]:
    """Every question of every task, word for word."""
    which = tuple(w.format(category=c) for c in CATEGORIES for w in (*_WHICH_HEARD, *_WHICH_SEEN))
    return {"Come": _COME, "Happening": _HAPPENING, "Where": _WHERE, "Which": which}


def task_answers() -> dict[str, tuple[str, ...]]:
    """Every answer of every task."""
    names = tuple(kind.name for kind in named_kinds())
    return {
        "Come": names,
        "Happening": tuple(kind.happening for kind in named_kinds()),
        "Where": tuple(place.name for place in named_places()),
        "Which": names,
    }


def answer_vocabulary() -> frozenset[str]:
    """The words of all answers in lower case, articles and prepositions left out.

    The text that the tiny backbone is pre-trained on must use none of them, else it would know answers
    beforehand.
    """
    every = " ".join(answer for answers in task_answers().values() for answer in answers)
    return frozenset(every.lower().split()) - {"a", "an", "the", "in", "with"}
