"""Problems found in input files, collected so that a user sees them all at once.

Every problem says where it is (file, index in the file, id of the sample) and what was got, what was expected
and how to fix it. Readers collect problems and raise one InputError at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHOWN = 20  # problems spelt out in one message; the rest is counted


@dataclass(frozen=True)
class Problem:
    """One fault in one place of one file."""

    source: Path  # file that holds the fault
    message: str  # got, expected, fix
    index: int | None = None  # position in the file, None for the file as a whole
    id: str | None = None  # id of the sample, None where it has none or it cannot be read

    def __str__(self) -> str:
        where = str(self.source)
        if self.index is not None:
            where += f", index {self.index}"
        if self.id is not None:
            where += f", id {self.id!r}"
        return f"{where}: {self.message}"


class InputError(ValueError):
    """Unusable input files; `problems` holds every fault, the message the first ones and the count.

    `readable` holds what has no fault so far, so that a caller can look for more: the samples of a sample
    file, or the one benchmark.
    """

    def __init__(self, problems: Sequence[Problem], readable: Sequence[Any] = ()) -> None:
        assert problems, "an InputError needs a problem"
        self.problems = tuple(problems)
        self.readable = tuple(readable)
        count = len(self.problems)
        if count == 1:
            text = str(self.problems[0])
        else:
            first = f" (the first {SHOWN} are shown)" if count > SHOWN else ""
            text = "\n  ".join([f"{count} problems{first}:", *map(str, self.problems[:SHOWN])])
        super().__init__(text)


def brief(value: object, limit: int = 60) -> str:
    """`repr` of a value cut to `limit` characters, for messages."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
