"""Embedding similarity with a local sentence encoder: an optional column beside exact match and the judge.

    s(answer) = max over accepted references r of cos(v(answer), v(r)),   v = mean of the last hidden states

References are the expected answer and its aliases. Texts are compared as normalised match writes them
(`loosen`), so that whatever it calls right has s = 1. Where answer and reference name different numbers,
their cosine counts as 0, since encoders put "two" next to "three". An answer is right where s is at least
the level; a failed one has no s and is wrong. The vectors are those of `--text_feature FOLDER`
(model/encoders/text.py).

Letters: N answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.scoring.answers import is_failed
from evaluation.scoring.normalised import NO_ALIASES, Aliases, loosen
from model.encoders.text import load_encoder_folder

LEVEL = 0.8  # see docs/scoring.md for what it lets through
Unit = Callable[[str], NDArray[np.float64]]


@dataclass(frozen=True)
class Similarity:
    """Scores answers with one encoder at one level."""

    folder: Path
    fingerprint: str
    """Digest of the encoder's weights."""
    level: float
    unit: Unit
    """Text -> its vector of unit length; a text that was embedded before is not embedded again."""

    def scores(
        self, answers: Sequence[str | None], expected: Sequence[str], aliases: Aliases = NO_ALIASES
    ) -> NDArray[np.float64]:
        """s of every answer, NaN for a failed one. (N,)

        Raises:
            ValueError: the lengths differ, or an expected answer is empty.
        """
        if len(answers) != len(expected):
            raise ValueError(
                f"{len(answers)} answers for {len(expected)} expected ones; the lengths must be equal"
            )
        pairs = zip(answers, expected, strict=True)
        return np.array([self._score(given, wanted, aliases) for given, wanted in pairs], dtype=np.float64)

    def correct(self, scores_N: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which scores reach the level. (N,)"""
        return scores_N >= self.level  # NaN does not

    def _score(self, answer: str | None, expected: str, aliases: Aliases) -> float:
        if is_failed(expected):
            raise ValueError(f"expected answer {expected!r} is empty; correct the data file")
        if answer is None or is_failed(answer):
            return float("nan")
        given, references = loosen(answer), aliases.spellings(expected)
        if given in references:
            return 1.0  # the cosine of equal vectors, without its rounding
        return max(self._cosine(given, reference) for reference in references)

    def _cosine(self, given: str, reference: str) -> float:
        if _numbers(given) != _numbers(reference):
            return 0.0
        return float(self.unit(given) @ self.unit(reference))


def load_similarity(folder: Path, level: float = LEVEL) -> Similarity:
    """The similarity by a Hugging Face encoder folder; nothing is fetched.

    Raises:
        ValueError: a level that is no cosine above 0, or a folder that is missing, incomplete or no encoder.
    """
    if not 0 < level <= 1:
        raise ValueError(f"--similarity_level: got {level}, expected a cosine above 0 and at most 1")
    if not folder.is_dir():
        raise ValueError(
            f"--similarity: {folder} is no folder; give the folder of a sentence encoder on this machine "
            "(config.json, weights, tokenizer), nothing is downloaded"
        )
    encoder = load_encoder_folder(folder)

    @cache
    def unit(text: str) -> NDArray[np.float64]:
        vector = encoder.encode(text).double().numpy()
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or not length:
            raise ValueError(f"{folder}: the vector of {text!r} has length {length}; take another encoder")
        return np.asarray(vector / length)

    return Similarity(folder, encoder.fingerprint, level, unit)


def _numbers(text: str) -> set[str]:
    """The figures of a loosened text, in which number words are figures too."""
    return {word for word in text.split() if word[0].isdigit()}


def wrong_quantiles(scores_N: NDArray[np.float64], matched_N: NDArray[np.bool_]) -> dict[str, float]:
    """How near the answers that do not match come: quantiles of their s, empty where all match or failed."""
    found = scores_N[~matched_N & ~np.isnan(scores_N)]
    if not len(found):
        return {}
    names = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "highest": 1.0}
    return {name: float(np.quantile(found, share)) for name, share in names.items()}
