"""How much of a test is known from training, and how far the text of a question alone goes.

Texts are compared as written (without media tags, ends stripped), clips by the paths of their files: copies
under other names are found by scripts/doctor.py, which compares contents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data.doctor.questions import text_bound
from evaluation.report.questions import Asked, Clip
from evaluation.scoring.answers import is_correct, normalise_answer


@dataclass(frozen=True)
class TaskLeakage:
    """Test questions of one task (counts), and what answers from text alone reach (percent)."""

    test: int
    same_text: int  # the text occurs in this task's training
    text_anywhere: int  # ... in any task's training
    same_clip: int  # the clip occurs in this task's training
    clip_anywhere: int  # ... in any task's training
    same_question: int  # text and clip together occur in any task's training
    look_up: float  # the answer most often given to this text in training, else the task's most frequent
    most_frequent: float  # always the task's most frequent training answer


@dataclass(frozen=True)
class Leakage:
    """A benchmark's leakage."""

    tasks: tuple[TaskLeakage, ...]
    routing_bound: dict[str, float]  # macro and micro: the best router of exact test texts, percent


def measure_leakage(train: Sequence[Sequence[Asked]], test: Sequence[Sequence[Asked]]) -> Leakage:
    """Compare the test questions of every task with the training questions of all tasks.

    Raises ValueError unless both have the same tasks, each with test questions.
    """
    if len(train) != len(test) or not all(test):
        raise ValueError("leakage: every task needs test questions; add them to the benchmark file")
    texts = {text for group in train for text in _texts(group)}
    clips = {medium for group in train for sample in group for medium in sample.clips}
    asked = {(sample.clips, sample.text) for group in train for sample in group}
    rows = tuple(_task(own, group, texts, clips, asked) for own, group in zip(train, test, strict=True))
    return Leakage(rows, text_bound([list(_texts(group)) for group in test]))


def _task(
    train: Sequence[Asked],
    test: Sequence[Asked],
    texts: set[str],
    clips: set[Clip],
    asked: set[tuple[tuple[Clip, ...], str]],
) -> TaskLeakage:
    own_texts = set(_texts(train))
    own_clips = {medium for sample in train for medium in sample.clips}
    answers: dict[str, Counter[str]] = {}
    for sample in train:
        answers.setdefault(sample.text, Counter())[normalise_answer(sample.answer)] += 1
    frequent = _top(normalise_answer(sample.answer) for sample in train)
    best = {text: _top(counts.elements()) for text, counts in answers.items()}
    return TaskLeakage(
        test=len(test),
        same_text=sum(text in own_texts for text in _texts(test)),
        text_anywhere=sum(text in texts for text in _texts(test)),
        same_clip=sum(any(medium in own_clips for medium in sample.clips) for sample in test),
        clip_anywhere=sum(any(medium in clips for medium in sample.clips) for sample in test),
        same_question=sum((sample.clips, sample.text) in asked for sample in test),
        look_up=_percent(is_correct(best.get(s.text, frequent), s.answer) for s in test),
        most_frequent=_percent(is_correct(frequent, sample.answer) for sample in test),
    )


def _texts(samples: Iterable[Asked]) -> Iterable[str]:
    return (sample.text for sample in samples)


def _top(answers: Iterable[str]) -> str | None:
    """The most frequent answer, of equally frequent ones the first in the alphabet; None without answers."""
    counts = Counter(answers)
    return min(counts, key=lambda answer: (-counts[answer], answer)) if counts else None


def _percent(hits: Iterable[bool]) -> float:
    found = list(hits)
    return 100 * sum(found) / len(found)
