"""Which scenes and which questions the sample data hold.

Each split draws its own scenes. The pairs (thing, place) and (sounding thing, silent partner) are dealt out
to the splits, so that a test clip shows a combination that no training clip shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .kinds import Kind, named_kinds
from .places import Place, named_places
from .questions import ask
from .scene import CLIP_TYPES, Scene, compose_scene

# share of the clip types A, B, C and D
_TYPE_SHARES = (0.56, 0.28, 0.08, 0.08)
# The commonest answers; all others weigh 1. Real data are skewed, and the blind comparison row needs a prior.
_COMMON_THINGS = {"gull": 5.0, "fiddle": 2.5, "tram": 2.5}
_COMMON_PLACES = {"beach": 3.0, "library": 2.0}


@dataclass(frozen=True)
class SplitPlan:
    """How many clips and questions a split holds."""

    name: str  # train, val or test
    clips: int
    questions: int  # of each task
    noise_db: tuple[float, float]  # background noise relative to the main sound


SPLITS = (
    SplitPlan("train", 240, 200, (-36.0, -20.0)),
    SplitPlan("val", 48, 40, (-32.0, -14.0)),
    SplitPlan("test", 120, 100, (-32.0, -14.0)),
)


@dataclass(frozen=True)
class Question:
    """One item of one task."""

    task: str
    clip: int  # index into the scenes of its split
    text: str
    answer: str


def draw_scenes(plan: SplitPlan, rng: np.random.Generator) -> tuple[Scene, ...]:
    """The scenes of a split; things sound and places show as often as their weights say."""
    kinds, places = named_kinds(), named_places()
    mains = _deal(rng, plan.clips, np.array([_COMMON_THINGS.get(kind.name, 1.0) for kind in kinds]))
    types = _deal(rng, plan.clips, np.array(_TYPE_SHARES))
    weights = np.array([_COMMON_PLACES.get(place.name, 1.0) for place in places])
    scenes = []
    for main, clip_type in zip(mains, types, strict=True):
        allowed = np.array([_is_held_out(int(main), p) != (plan.name == "train") for p in range(len(places))])
        place = int(rng.choice(len(places), p=weights * allowed / (weights * allowed).sum()))
        scenes.append(_scene(rng, plan, kinds, int(main), places[place], CLIP_TYPES[clip_type]))
    return tuple(scenes)


def _is_held_out(first: int, second: int) -> bool:
    """Whether a pair belongs to val and test: one pair in three, spread evenly."""
    return (first + second) % 3 == 0


def _deal(rng: np.random.Generator, count: int, weights: np.ndarray) -> np.ndarray:
    """`count` indices in random order, each as often as its weight says, rounded by largest remainder."""
    share = weights / weights.sum() * count
    times = np.floor(share).astype(int)
    times[np.argsort(times - share, kind="stable")[: count - times.sum()]] += 1
    return rng.permutation(np.repeat(np.arange(len(weights)), times))


def _scene(
    rng: np.random.Generator,
    plan: SplitPlan,
    kinds: tuple[Kind, ...],
    main: int,
    place: Place,
    clip_type: str,
) -> Scene:
    held_out = plan.name != "train"
    others = [i for i in range(len(kinds)) if i != main and _is_held_out(main, i) == held_out]
    partner = kinds[int(rng.choice(others))]
    strangers = [k for i, k in enumerate(kinds) if i != main and k not in (partner, kinds[main])]
    off_screen = strangers[int(rng.integers(len(strangers)))]
    count = 2 if clip_type == "A" and rng.random() < 0.15 else 1
    return compose_scene(
        rng,
        place,
        kinds[main],
        partner,
        off_screen,
        clip_type=clip_type,
        count=count,
        noise_db=plan.noise_db,
    )


def draw_questions(
    plan: SplitPlan, scenes: tuple[Scene, ...], rng: np.random.Generator
) -> tuple[Question, ...]:
    """The questions of a split, task by task: a clip is asked about at most once by a task.

    Come asks about clips of types A, B and C, Happening of A and B, Where and Which of all. Which asks what
    sounds in A, B and D, what is seen in C and in every third A.

    Raises:
        ValueError: there are too few clips of the types that a task can ask about.
    """
    questions = []
    for task, types in (("Come", "ABC"), ("Happening", "AB"), ("Where", "ABCD"), ("Which", "ABCD")):
        clips = [i for i, scene in enumerate(scenes) if scene.clip_type in types]
        chosen = rng.permutation(clips)[: plan.questions]
        if len(chosen) < plan.questions:
            raise ValueError(
                f"{plan.name}: {task} asks {plan.questions} questions, but only {len(clips)} of "
                f"{len(scenes)} clips suit it; raise SplitPlan.clips"
            )
        for number, clip in enumerate(chosen):
            scene = scenes[clip]
            seen = task == "Which" and (
                scene.clip_type == "C" or (scene.clip_type == "A" and number % 3 == 0)
            )
            text, answer = ask(task, scene, int(rng.integers(1000)), seen)
            questions.append(Question(task, int(clip), text, answer))
    return tuple(questions)
