"""Normalised match: the second column beside exact match, for answers that differ in writing only.

Exact match (answers.py) forgives case, spaces, one final period and articles. Beyond that, forgiven here are

    punctuation   removed; hyphen, underscore and slash become a space; a decimal point stays
    numbers       zero to ninety-nine in words become figures, the comma of thousands goes
    letters       width and ligatures by Unicode NFKC, accents dropped
    aliases       spellings that the benchmark's alias file accepts for an answer

What matches exactly also matches here. Plurals, tenses and word order are still not forgiven: list them as
aliases where they mean the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.scoring.answers import is_failed, normalise_answer

_UNIT_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TEN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS = {word: number for number, word in enumerate(_UNIT_WORDS.split())}
_TENS = {word: 10 * number for number, word in enumerate(_TEN_WORDS.split(), start=2)}


def loosen(text: str) -> str:
    """The text as normalised match compares it; empty only where `normalise_answer` leaves nothing either."""
    strict = normalise_answer(text)
    plain = unicodedata.normalize("NFKD", strict).casefold()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", plain)
    plain = re.sub(r"[-_/\u2010-\u2015\u2212]+", " ", plain)
    plain = re.sub(r"(?<!\d)\.|\.(?!\d)|[^\w\s.]", "", plain)
    words = _figures(normalise_answer(plain).split())
    return " ".join(words) or strict


def _figures(words: Sequence[str]) -> list[str]:
    """Number words as figures: twenty one -> 21."""
    found: list[str] = []
    tens = None  # a ten that waits for its unit
    for word in words:
        unit = _UNITS.get(word)
        if tens is not None and unit is not None and 0 < unit < 10:
            found[-1] = str(tens + unit)
            tens = None
            continue
        tens = _TENS.get(word)
        number = tens if tens is not None else unit
        found.append(word if number is None else str(number))
    return found


@dataclass(frozen=True)
class Aliases:
    """What a benchmark accepts for its answers, as loosened texts."""

    canonical: Mapping[str, str] = field(
        default_factory=dict
    )  # accepted spelling -> the answer it stands for

    @classmethod
    def from_lists(cls, accepted: Mapping[str, Sequence[str]]) -> Aliases:
        """From answer -> accepted spellings.

        Raises ValueError for an empty text, an answer given twice, or a spelling that would stand for two
        answers, since then a wrong answer could count as right.
        """
        answers: dict[str, str] = {}  # loosened -> as written
        for answer in accepted:
            if is_failed(answer):
                raise ValueError(f"answer {answer!r} is empty; remove it")
            if loosen(answer) in answers:
                raise ValueError(
                    f"answers {answers[loosen(answer)]!r} and {answer!r} are the same after normalisation; "
                    "put their spellings into one list"
                )
            answers[loosen(answer)] = answer
        canonical: dict[str, str] = {}
        for answer, spellings in accepted.items():
            for spelling in spellings:
                key = loosen(spelling)
                if is_failed(spelling):
                    raise ValueError(f"answer {answer!r}: accepts the empty text {spelling!r}; remove it")
                other = key if key in answers else canonical.get(key, loosen(answer))
                if other != loosen(answer):
                    raise ValueError(
                        f"answer {answer!r}: accepts {spelling!r}, which stands for {answers[other]!r} too; "
                        "keep it in one place"
                    )
                if key != loosen(answer):
                    canonical[key] = loosen(answer)
        return cls(canonical)

    def matches(self, answer: str | None, expected: str) -> bool:
        """Whether an answer is the expected one, normalised and by these aliases; a failed one never."""
        if answer is None or is_failed(answer):
            return False
        given, wanted = loosen(answer), loosen(expected)
        return self.canonical.get(given, given) == self.canonical.get(wanted, wanted)

    def spellings(self, expected: str) -> tuple[str, ...]:
        """All loosened texts that match this answer; the answer that the spellings stand for comes first."""
        wanted = loosen(expected)
        answer = self.canonical.get(wanted, wanted)
        return answer, *(text for text, stands_for in self.canonical.items() if stands_for == answer)


NO_ALIASES = Aliases()
