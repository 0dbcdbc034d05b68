"""What the doctor finds: sections of findings, each one line, ordered by weight."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

SHOWN = 5  # examples of one kind of fault on the screen; the JSON report has all


class Level(IntEnum):
    """How much a finding weighs."""

    OK = 0  # checked and right
    NOTE = 1  # worth knowing
    WARNING = 2  # the run goes through, but perhaps not as meant
    PROBLEM = 3  # stops the run, now or hours later


@dataclass(frozen=True)
class Finding:
    """One line of the report; `cases` are the single faults where it stands for many."""

    level: Level
    where: str  # file, folder or subject; empty where each case has its own
    message: str
    cases: tuple[str, ...] = ()


@dataclass
class Section:
    """One subject of the report."""

    title: str
    root: Path | None = None  # places below it are shown without it
    findings: list[Finding] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)  # shown before the findings, the first row is a head
    facts: dict[str, Any] = field(default_factory=dict)  # for the JSON report

    def add(self, level: Level, where: str | Path, message: str, cases: Sequence[str] = ()) -> None:
        """Add a finding, once, its message on one line."""
        text = " ".join(message.removeprefix(f"{where}: ").split())
        finding = Finding(level, str(where), text, tuple(cases))
        if finding not in self.findings:
            self.findings.append(finding)

    def add_error(self, error: Exception, place: str | Path) -> None:
        """Add the problem that a reader raised, usually as `FILE: WHAT`; else it is `place` that has it."""
        named, _, what = str(error).partition(": ")
        if what and "/" in named:
            self.add(Level.PROBLEM, named, what)
        else:
            self.add(Level.PROBLEM, place, str(error))

    def count(self, level: Level) -> int:
        """Findings of one level, those that say the same counted once."""
        return sum(finding.level == level for finding in self.merged())

    def merged(self) -> list[Finding]:
        """The findings, those that say the same of several places as one: the places become its cases."""
        groups: dict[tuple[object, ...], list[Finding]] = {}
        for finding in self.findings:
            key = (finding.level, finding.message) if not finding.cases else (id(finding),)
            groups.setdefault(key, []).append(finding)
        return [
            group[0] if len(group) == 1 else replace(group[0], where="", cases=tuple(f.where for f in group))
            for group in groups.values()
        ]

    def soften(self) -> None:
        """Make warnings of the problems: the run that is meant goes without what this section is about."""
        self.findings = [
            replace(finding, level=min(finding.level, Level.WARNING)) for finding in self.findings
        ]

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Within the block warnings that the libraries log become findings of this section, grouped."""
        records: list[logging.LogRecord] = []
        handler = _Collector(records)
        root = logging.getLogger()
        others, root.handlers = root.handlers, [handler]
        try:
            yield
        finally:
            root.handlers = others
        self.add_grouped(Level.WARNING, [record.getMessage() for record in records])

    def add_grouped(self, level: Level, messages: Iterable[str]) -> None:
        """One finding for each kind of message `PLACE: WHAT`; several of a kind become its cases."""
        groups: dict[str, list[str]] = {}
        for message in messages:
            groups.setdefault(pattern(message), []).append(message)
        for shape, group in groups.items():
            parts = [message.partition(": ") for message in group]
            if len({what for _, _, what in parts}) == 1 and parts[0][1]:
                for place, _, what in parts:
                    self.add(level, place, what)
            elif len(group) == 1:
                self.add(level, "", group[0])
            else:
                self.add(level, "", shape, group)


class _Collector(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.WARNING)
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def pattern(message: str) -> str:
    """The message without what differs from case to case: paths, quoted texts and numbers become `...`.

    `a/b.json, index 3, id 'q3': x.mp4: no such file` -> `no such file`: the leading place is left out.
    """
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*|\b\d+(\.\d+)?\b", "...", message)
    text = re.sub(r"^(\.\.\.[,:]?|index|id|\s|,)+(?=\S)", "", text)
    return re.sub(r"(\.\.\.[ ,]*){2,}", "... ", text).strip()
