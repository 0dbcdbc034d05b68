from __future__ import annotations

import logging

from data.doctor.findings import Level, Section, pattern
from data.doctor.report import format_section, to_json, verdict


def test_messages_of_one_kind_have_one_pattern() -> None:
    shape = "no such file; check the path and the media root"
    assert pattern("/d/a.json, index 3, id 'q3': /m/x.mp4: " + shape) == shape
    assert pattern("b.json, index 77, id 'r': m/long name/y.mp4: " + shape).endswith(shape)
    assert pattern("anchor of task 0 has no image") == pattern("anchor of task 12 has no image")


def test_findings_of_one_kind_are_one_line_with_five_cases() -> None:
    section = Section("Data")
    section.add_grouped(Level.PROBLEM, [f"a.json, index {i}, id 'q{i}': answer: is empty" for i in range(7)])
    section.add_grouped(Level.WARNING, [f"d/{name}.pt: base unverified" for name in "xyz"])
    assert [section.count(level) for level in Level] == [0, 0, 1, 1]
    lines = format_section(section).splitlines()
    assert lines[1] == "  warning  d/x.pt, d/y.pt, d/z.pt: base unverified"
    assert lines[2] == "  PROBLEM  7 times: answer: is empty"
    assert lines[3].strip() == "a.json, index 0, id 'q0'"
    assert (len(lines), lines[-1].strip()) == (9, "and 2 more (--json OUT has all)")
    [whole] = to_json([section], "next")["sections"]
    assert len(whole["findings"]) == 10, "the JSON report has every case"


def test_warnings_of_libraries_become_findings() -> None:
    section, log = Section("Experts"), logging.getLogger("model.somewhere")
    before = logging.getLogger().handlers
    with section.hearing():
        log.warning("%s: base unverified", "a.pt")
        log.info("nothing to say")
    assert logging.getLogger().handlers is before
    assert [(f.level, f.where, f.message) for f in section.findings] == [
        (Level.WARNING, "a.pt", "base unverified")
    ]


def test_verdict_counts_problems_and_warnings() -> None:
    section = Section("x")
    assert verdict([section]) == "nothing stands in the way, no warnings"
    section.add(Level.WARNING, "a", "b")
    assert verdict([section]) == "nothing stands in the way, 1 warning"
    section.add(Level.PROBLEM, "a", "c")
    section.add(Level.PROBLEM, "a", "c")
    section.add(Level.PROBLEM, "a", "d")
    assert verdict([section]) == "2 problems will stop a run, 1 warning"
    section.soften()
    assert verdict([section]) == "nothing stands in the way, 3 warnings"


def test_messages_stay_on_one_line() -> None:
    section = Section("x")
    section.add(Level.PROBLEM, "a.pt", "a.pt: broken\n\tin two")
    assert format_section(section) == "x\n  PROBLEM  a.pt: broken in two"
