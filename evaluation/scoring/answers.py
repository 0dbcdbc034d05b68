"""Short answers against the expected ones: exact match after a conservative normalisation.

AVQACL-MoE and the AVQA benchmarks count an open-ended answer as right when it is the expected answer. What is
forgiven here is spelling that carries no meaning: case, spaces at the ends and doubled, one final period, and
the articles a, an, the. Synonyms, plurals, underscores and word order are not forgiven.

Letters: N samples.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True)
class AnswerScores:
    """Which of N answers are right, and which failed. A failed answer is never right."""

    correct: NDArray[np.bool_]  # (N,)
    failed: NDArray[np.bool_]  # (N,) no answer at all, or an empty one

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.correct)

    @property
    def n_failed(self) -> int:
        """Number of samples without an answer; they count as wrong."""
        return int(self.failed.sum())

    @property
    def accuracy(self) -> float | None:
        """Right answers in percent of all samples, the failed ones included; None without samples."""
        return 100.0 * float(self.correct.mean()) if self.n else None

    @property
    def accuracy_of_answered(self) -> float | None:
        """Right answers in percent of those that did not fail, 0 if all did; None without samples."""
        answered = max(self.n - self.n_failed, 1)
        return 100.0 * float(self.correct.sum()) / answered if self.n else None

    def as_numbers(self, *, drop_failed: bool = False) -> NDArray[np.float64]:
        """(N,) 1 right, 0 wrong; with `drop_failed` NaN for a failed answer, to be left out."""
        numbers = self.correct.astype(np.float64)
        if drop_failed:
            numbers[self.failed] = np.nan
        return numbers


def normalise_answer(text: str) -> str:
    """Lower case, single spaces, without one final period and without articles.

    An answer that consists of articles only is kept ("A." becomes "a"), so that nothing but an empty answer
    normalises to the empty text.
    """
    text = re.sub(r"\s+", " ", text).strip().lower()
    text = text.removesuffix(".").rstrip()
    words = text.split(" ")
    kept = [word for word in words if word not in _ARTICLES]
    return " ".join(kept or words)


def is_failed(answer: str | None) -> bool:
    """Whether there is nothing to score: no answer (None), or one that is empty or a lone period."""
    return answer is None or not normalise_answer(answer)


def is_correct(answer: str | None, expected: str) -> bool:
    """Whether a given answer is the expected one after normalisation; a failed answer is not.

    Raises ValueError for an empty expected answer, which every empty answer would match.
    """
    wanted = normalise_answer(expected)
    if not wanted:
        raise ValueError(f"expected answer {expected!r} is empty; correct the data file")
    return answer is not None and normalise_answer(answer) == wanted


def score_answers(answers: Sequence[str | None], expected: Sequence[str]) -> AnswerScores:
    """Score N answers (None where answering failed) against the N expected ones.

    Raises ValueError if the lengths differ or an expected answer is empty.
    """
    if len(answers) != len(expected):
        raise ValueError(
            f"{len(answers)} answers for {len(expected)} expected ones; the lengths must be equal"
        )
    correct = [is_correct(answer, wanted) for answer, wanted in zip(answers, expected, strict=True)]
    failed = [is_failed(answer) for answer in answers]
    return AnswerScores(np.array(correct, dtype=bool), np.array(failed, dtype=bool))
