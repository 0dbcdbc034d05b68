"""Questions spoilt by rule, to see what routers withstand: cut off, and with slips of the keyboard.

Everything follows from text and seed alone.
"""

from __future__ import annotations

import random

_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def truncated(text: str, share: float = 0.6) -> str:
    """The first words, this share of them rounded up, without what ends a sentence."""
    words = text.rstrip(" ?.!").split()
    return " ".join(words[: max(1, -int(-share * len(words) // 1))])


def misspelt(text: str, seed: int = 0, share: float = 0.3) -> str:
    """Slips in this share of the words of four letters or more, in one at least: two letters swapped, one
    left out, doubled, or replaced by its neighbour on the keyboard."""
    rng = random.Random(f"{seed} {text}")
    words = text.split(" ")
    long = [place for place, word in enumerate(words) if sum(map(str.isalpha, word)) >= 4]
    for place in rng.sample(long, min(len(long), max(1, round(share * len(long))))):
        words[place] = _slip(words[place], rng)
    return " ".join(words)


def _slip(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[: at + 1] + word[at:]
    row = next((row for row in _KEYBOARD if word[at].lower() in row), word[at])
    beside = row.find(word[at].lower()) + rng.choice((-1, 1))
    return word[:at] + row[beside % len(row)] + word[at + 1 :]
