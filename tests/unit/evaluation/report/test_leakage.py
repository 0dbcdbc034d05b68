"""Leakage against a case counted by hand."""

import pytest

from evaluation.report.leakage import measure_leakage
from evaluation.report.questions import Asked


def sample(question: str, answer: str, clip: str) -> Asked:
    return Asked("x", question, answer, (("video", clip), ("voice", f"sound of {clip}")))


def test_by_hand() -> None:
    train = [
        [sample("what?", "Axe.", "a"), sample("what?", "an axe", "b"), sample("what?", "gong", "c")],
        [sample("where?", "lake", "d")],
    ]
    test = [
        [sample("what?", "axe", "a"), sample("what?", "gong", "z"), sample("where?", "axe", "y")],
        [sample("where?", "hill", "a"), sample("what?", "lake", "x")],
    ]
    found = measure_leakage(train, test)
    first, second = found.tasks
    assert (first.test, first.same_text, first.text_anywhere) == (3, 2, 3)
    assert (first.same_clip, first.clip_anywhere, first.same_question) == (1, 1, 1)
    assert first.look_up == pytest.approx(
        200 / 3
    )  # axe is the most frequent answer, with and without the text
    assert (second.same_text, second.text_anywhere, second.same_clip, second.clip_anywhere) == (1, 2, 0, 1)
    assert (second.look_up, second.most_frequent, second.same_question) == (50.0, 50.0, 0)
    assert found.routing_bound["micro"] == pytest.approx(60.0)  # "what?" 2 of 3, "where?" 1 of 2
    with pytest.raises(ValueError, match="every task needs test questions"):
        measure_leakage(train, [test[0], []])
