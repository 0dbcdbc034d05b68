"""Questions of two benchmarks in other words, written by hand: do routers follow the meaning?

A file holds, per original question, its task, the half it belongs to and its rewordings; the answer to the
question stays what it was. Originals are named by the hash of their text, so that no annotation is copied
here. `dev` is for choosing, `test` for reporting: an original and all its rewordings are in one half.
`unseen` is a further hundred for each benchmark, written before the rules of data/rewording.txt and asked
once, after everything was chosen. The two last are by four others who knew no rules: `others_dev` by two
whose questions were then read to add rules, `others` by two whose questions no writer of rules has read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.benchmark import read_json

HALVES = ("dev", "test", "unseen", "others_dev", "others")
_DIGITS = 12


@dataclass(frozen=True)
class Rewording:
    """One question in other words."""

    text: str
    """The new question, without media tags."""
    task: str
    """Key of the task in the benchmark's recipe."""
    question: str
    """`question_hash` of the original."""
    half: str
    """One of HALVES."""


def question_hash(text: str) -> str:
    """What names an original question: the start of the SHA-256 of its text without media tags."""
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def read_rewordings(path: Path) -> list[Rewording]:
    """All rewordings of a file, in its order.

    Raises:
        ValueError: unreadable, an entry without one of its fields, an unknown half, or a text twice.
    """
    found: list[Rewording] = []
    content = read_json(path)
    entries = content.get("questions") if isinstance(content, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected an object with a list `questions`")
    for index, entry in enumerate(entries):
        try:
            task, question, half, texts = (entry[key] for key in ("task", "question", "half", "rewordings"))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: entry {index} lacks {error}") from error
        if half not in HALVES or not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            raise ValueError(f"{path}: entry {index}: half {half!r} and texts; expected one of {HALVES}")
        found += [Rewording(text, str(task), str(question), half) for text in texts]
    texts = [item.text for item in found]
    twice = sorted({text for text in texts if texts.count(text) > 1})
    if twice:
        raise ValueError(f"{path}: {twice[:3]} occur more than once")
    return found


def benchmark_rewordings(benchmark: str) -> list[Rewording]:
    """The project's own set for a benchmark, by the name of its recipe.

    Raises:
        ValueError: there is none.
    """
    path = Path(__file__).with_name(f"{benchmark}.json")
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.json"))
        raise ValueError(f"no rewordings of {benchmark!r}; there are {', '.join(known)}")
    return read_rewordings(path)
