"""The doctor's report: for people (short) and as JSON (complete)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data.doctor.findings import SHOWN, Finding, Level, Section

WORDS = {Level.OK: "ok", Level.NOTE: "note", Level.WARNING: "warning", Level.PROBLEM: "PROBLEM"}


def format_section(section: Section) -> str:
    """Title, table, findings with at most SHOWN cases each."""
    lines = [section.title, *_table(section.table)]
    for finding in sorted(section.merged(), key=lambda finding: finding.level):
        lines += _finding(section, finding)
    return "\n".join(lines)


def _finding(section: Section, finding: Finding) -> list[str]:
    """One line; where it stands for many cases they follow, unless their places fit on the line."""
    where, cases = finding.where, finding.cases
    if not where and 0 < len(cases) <= SHOWN and all(": " not in case for case in cases):
        where, cases = ", ".join(cases), ()
    elif not where and cases:
        where = f"{len(cases)} times"
    line = f"  {WORDS[finding.level]:<8} {where + ': ' if where else ''}{finding.message}"
    lines = [line, *(f"             {case}" for case in cases[:SHOWN])]
    if len(cases) > SHOWN:
        lines.append(f"             and {len(cases) - SHOWN} more (--json OUT has all)")
    return [_short(section, text) for text in lines]


def _short(section: Section, text: str) -> str:
    """The text without the folder that the whole section is about."""
    return text if section.root is None else text.replace(f"{section.root}/", "")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns: the first to the left, numbers to the right."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def verdict(sections: Sequence[Section]) -> str:
    """One line: whether a run would go through."""
    problems, warnings = (sum(s.count(level) for s in sections) for level in (Level.PROBLEM, Level.WARNING))
    counted = f"{warnings} warning{'s' if warnings != 1 else ''}" if warnings else "no warnings"
    if problems:
        return f"{problems} problem{'s' if problems != 1 else ''} will stop a run, {counted}"
    return f"nothing stands in the way, {counted}"


def to_json(sections: Sequence[Section], command: str) -> dict[str, Any]:
    """Everything: all cases, tables, facts."""
    return {
        "verdict": verdict(sections),
        "problems": sum(section.count(Level.PROBLEM) for section in sections),
        "warnings": sum(section.count(Level.WARNING) for section in sections),
        "next": command,
        "sections": [
            {
                "title": section.title,
                "findings": [
                    {
                        "level": finding.level.name.lower(),
                        "where": finding.where,
                        "message": finding.message,
                        "cases": list(finding.cases),
                    }
                    for finding in section.findings
                ],
                "table": section.table,
                "facts": section.facts,
            }
            for section in sections
        ],
    }
