"""Slips of the keyboard, mended before an encoder of word pieces reads a question.

A misspelt word falls into pieces that no question has, and its meaning is lost. A word of SHORTEST letters or
more that the encoder has no single piece for is replaced by a word one slip away: two letters swapped, one
left out, added or changed (F. Damerau, CACM 7 (1964) 171). Words of the rules of rewording come first, then
the first FREQUENT words of the vocabulary, which stand in about the order of how often they are used. What
the encoder or the rules know is never touched; nothing is known of any benchmark's questions.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence

from data.rewording import rule_words

SHORTEST = 4
FREQUENT = 8000
_WORD = re.compile(r"[A-Za-z]+")


class Spelling:
    """Mends texts by a vocabulary.

    Args:
        words: whole words that an encoder has a piece for, in small letters, the frequent ones first; with
            none texts stay as they are.
    """

    def __init__(self, words: Sequence[str]) -> None:
        own = rule_words() if words else []
        self._known = frozenset([*own, *words])
        self._rank = {word: rank for rank, word in reversed(list(enumerate([*own, *words[:FREQUENT]])))}

    def mended(self, text: str) -> str:
        """The text, every unknown word replaced that is one slip away from a known one."""
        return _WORD.sub(lambda found: self._word(found[0]), text) if self._known else text

    def _word(self, word: str) -> str:
        small = word.lower()
        if len(small) < SHORTEST or small in self._known:
            return word
        return min(
            (other for other in _one_slip(small) if other in self._rank), key=self._order, default=word
        )

    def _order(self, word: str) -> int:
        return self._rank[word]


def _one_slip(word: str) -> Iterator[str]:
    """Everything one slip away, and the word itself."""
    for at in range(len(word) + 1):
        left, right = word[:at], word[at:]
        if len(right) > 1:
            yield left + right[1] + right[0] + right[2:]
        if right:
            yield left + right[1:]
        for letter in string.ascii_lowercase:
            yield left + letter + right
            if right:
                yield left + letter + right[1:]
