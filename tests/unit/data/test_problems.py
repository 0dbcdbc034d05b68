from __future__ import annotations

from pathlib import Path

from data.problems import SHOWN, InputError, Problem, brief


def test_where_a_problem_is() -> None:
    assert str(Problem(Path("a.json"), "bad")) == "a.json: bad"
    assert str(Problem(Path("a.json"), "bad", 3)) == "a.json, index 3: bad"
    assert str(Problem(Path("a.json"), "bad", 3, "q")) == "a.json, index 3, id 'q': bad"


def test_one_problem_is_the_message() -> None:
    assert str(InputError([Problem(Path("a"), "bad")])) == "a: bad"


def test_many_problems_are_counted_and_the_first_shown() -> None:
    error = InputError([Problem(Path("a"), f"bad {i}") for i in range(SHOWN + 5)])
    lines = str(error).splitlines()
    assert lines[0] == f"{SHOWN + 5} problems (the first {SHOWN} are shown):"
    assert len(lines) == SHOWN + 1
    assert lines[-1].strip() == f"a: bad {SHOWN - 1}"
    assert len(error.problems) == SHOWN + 5


def test_brief() -> None:
    assert brief("x") == "'x'"
    assert len(brief("x" * 500)) == 60
