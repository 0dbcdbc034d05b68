"""What a report says, before it is written: chapters of sections of blocks.

Tables and texts go into every format; figures and examples only into the HTML page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.report.markup import Markup

PLUS_MINUS = "\u00b1"
UP, DOWN = "\u2191", "\u2193"  # higher, lower is better
MISSING = "\u2013"


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    spread: str = ""  # standard deviation over the seeds
    note: str = ""  # a second, smaller line, such as an interval
    heat: float | None = None  # shade of the background, 0 to 1
    strong: bool = False

    @property
    def line(self) -> str:
        """Text and spread in one line."""
        return f"{self.text} {PLUS_MINUS} {self.spread}" if self.spread else self.text


@dataclass(frozen=True)
class Table:
    """A table; the first `left` columns hold text, the others numbers."""

    caption: str
    header: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: int = 1
    compact: bool = False  # on paper without the notes of its cells


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "plain"  # or "key" for a finding, "gap" for what is not there and why


@dataclass(frozen=True)
class Code:
    """Lines to be typed."""

    text: str
    caption: str


@dataclass(frozen=True)
class Figure:
    """Pictures side by side under one caption."""

    pictures: tuple[Markup, ...]
    caption: str
    legend: Markup = Markup()


@dataclass(frozen=True)
class Side:
    """Tables that stand side by side where the page is wide enough."""

    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Example:
    """One question and its answer."""

    id: str
    task: str
    expert: str  # the task whose expert answered
    verdict: str  # right, wrong or failed
    question: str
    expected: str
    given: str
    scores: Table | None
    frames: tuple[Markup, ...] = ()
    without_frames: str = ""  # why there are none


@dataclass(frozen=True)
class Gallery:
    """Examples."""

    examples: tuple[Example, ...]


Block = Table | Text | Code | Figure | Side | Gallery


@dataclass(frozen=True)
class Section:
    """A titled part of a chapter."""

    key: str  # unique within the chapter
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Chapter:
    """One evaluation, or what is common to all."""

    key: str  # unique, part of the anchors
    title: str
    lead: str
    sections: tuple[Section, ...]
    headline: tuple[tuple[str, Cell, str], ...] = ()  # numbers: name, value, what it is


@dataclass(frozen=True)
class Document:
    """The whole report."""

    title: str
    lead: str
    chapters: tuple[Chapter, ...]


def table(
    caption: str,
    header: Sequence[str | Cell],
    rows: Sequence[Sequence[str | Cell]],
    left: int = 1,
    compact: bool = False,
) -> Table:
    """A table of texts and cells. Raises ValueError for a row of another length than the header."""
    wrong = [len(row) for row in rows if len(row) != len(header)]
    if wrong:
        raise ValueError(f"table {caption!r}: a row of {wrong[0]} cells under {len(header)} columns")
    return Table(caption, _cells(header), tuple(map(_cells, rows)), left, compact)


def _cells(row: Sequence[str | Cell]) -> tuple[Cell, ...]:
    return tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row)
