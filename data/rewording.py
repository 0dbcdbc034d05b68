"""Questions in other words, made by rule, for anchors: other words and other ways of asking for the same.

The rules stand in rewording.txt. Grammar suffers at times, which the encoders of questions forgive.
Everything follows from text and seed alone.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from data.spoilt_questions import truncated

VIDEO = "{video|clip|footage|recording|film|scene|tape|movie|sequence|shot|video clip}"
PLACES = "{|| here| on screen| in view| {in|of|throughout|within} {the|this|that} video}"
"""Where: most often not said."""
COMMANDS = "{name|identify|give|state|point out|say which is|determine|specify|indicate|find|mention}"
LEADS = (
    "{{can|could|would} you {please |}{tell me|say|tell|let me know|explain|find out}"
    "|{please |}{tell me|say|state|let me know|indicate|find out|determine}"
    "|i {would like to|want to|'d love to|wish to} {know|hear|be told|find out}"
    "|i wonder|do you know|any idea|{so|well|hey|ok|now|and}|in your {opinion|view}"
    "|it would be good to know|let us find out|guess}"
)
TAILS = "{, please|, do you think|, would you say|, exactly|, can you tell|, in fact|, then|, any idea}"
_PLACE = r" (in|of|throughout) (the|this)( entire)? video\b"
_COMMAND = r"(?:what|which) (?:is|are) (the (?!.*\bdoing\b).*)"
_WHAT = r"^what(?! (?:is|are)\b)"
_FORM, _WORD, _SAID = 0.6, 0.4, 0.5
"""Chances that the way of asking and each word are changed, and that words are said around the question."""


@dataclass(frozen=True)
class Rules:
    """What rewording.txt says."""

    ways: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]
    """Pattern of a whole question, ways of asking the same."""
    words: tuple[tuple[re.Pattern[str], str], ...]
    """Pattern of words, others."""

    @staticmethod
    @cache
    def read() -> Rules:
        """The rules of this project."""
        ways: list[tuple[re.Pattern[str], list[str]]] = []
        words = []
        for line in _lines():
            pattern, arrow, others = line.partition(" -> ")
            if line.startswith(" "):
                ways[-1][1].append(line.strip())
            elif arrow:
                words.append((re.compile(rf"\b(?:{pattern})\b"), others))
            else:
                ways.append((re.compile(line), []))
        return Rules(tuple((pattern, tuple(others)) for pattern, others in ways), tuple(words))


def _lines() -> list[str]:
    text = Path(__file__).with_suffix(".txt").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def rule_words() -> list[str]:
    """The words of four letters or more that the rules are made of, sorted."""
    text = " ".join([VIDEO, PLACES, COMMANDS, LEADS, TAILS, *_lines()])
    return sorted(set(re.findall(r"[a-z]{4,}", text)))


def reworded(text: str, number: int, seed: int = 0) -> list[str]:
    """At most `number` rewordings, all distinct and none the question itself; the first is its beginning."""
    drawn = (_rewording(text, random.Random(f"{seed} {index} {text}")) for index in range(1, number))
    found = dict.fromkeys([truncated(text), *drawn] if number else [])
    return [other for other in found if other != text]


def _rewording(text: str, rng: random.Random) -> str:
    rules = Rules.read()
    asked = text.strip().rstrip("?\uff1f.! ").lower().replace("what's", "what is")
    bare = re.sub(_PLACE, "", asked)
    fits = ((found, ways) for pattern, ways in rules.ways if (found := pattern.fullmatch(bare)))
    found, ways = next(fits, (None, ()))
    command = re.fullmatch(_COMMAND, asked)
    if found and rng.random() < _FORM:
        asked = found.expand(rng.choice(ways)) + PLACES
    elif command and rng.random() < _SAID:
        asked = f"{COMMANDS} {command[1]}"
    elif rng.random() < _SAID:
        asked = re.sub(_WHAT, "which", asked)
    if rng.random() < _FORM:
        asked = re.sub(_PLACE, PLACES, asked)
    asked = re.sub(r"\bvideo\b", VIDEO, _drawn(asked, rng))
    for pattern, others in rules.words:
        if pattern.search(asked) and rng.random() < _WORD:  # a rule moves no draw of other questions
            asked = pattern.sub(others, asked)
    if rng.random() < _SAID:
        asked = f"{LEADS} {asked}" if rng.random() < 0.7 else f"{asked}{TAILS}"
    asked = " ".join(_drawn(asked, rng).split())
    return f"{asked[:1].upper()}{asked[1:]}{rng.choice('??.')}"


def _drawn(text: str, rng: random.Random) -> str:
    """One part of each `{a|b}`, the innermost first."""
    while found := re.search(r"\{([^{}]*)\}", text):
        text = text[: found.start()] + rng.choice(found[1].split("|")) + text[found.end() :]
    return text
