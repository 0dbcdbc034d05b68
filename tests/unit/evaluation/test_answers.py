"""Answers: what normalisation forgives, and that failures count as wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.scoring.answers import is_correct, is_failed, normalise_answer, score_answers

WORDS = st.lists(st.text("bcdfgh_0-", min_size=1, max_size=6), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rope skipping", "rope skipping"),
        ("  the  Sea\n", "sea"),
        ("at the sea.", "at sea"),
        ("A dog.", "dog"),
        ("A.", "a"),
        ("the", "the"),
        ("acoustic_guitar", "acoustic_guitar"),
        ("e.g. this", "e.g. this"),
        ("", ""),
        (" . ", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise_answer(text) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("dogs", "dog"), ("dog cat", "cat dog"), ("theatre", "atre"), ("another", "other")],
)
def test_meaning_is_not_forgiven(answer: str, expected: str) -> None:
    assert not is_correct(answer, expected)


@given(WORDS)
def test_spelling_does_not_matter(words: list[str]) -> None:
    plain = " ".join(words)
    assert is_correct(f"  The {plain.upper()}. ", plain)
    assert normalise_answer(normalise_answer(plain)) == normalise_answer(plain)


def test_failed_answers_can_be_left_out_as_published() -> None:
    scores = score_answers(["dog", "", None, "cat"], ["dog", "dog", "dog", "dog"])
    assert (scores.accuracy, scores.accuracy_of_answered) == (25.0, 50.0)
    assert score_answers(["", None], ["dog", "dog"]).accuracy_of_answered == 0.0
    assert score_answers([], []).accuracy_of_answered is None


def test_failed_answers_are_wrong_and_counted() -> None:
    scores = score_answers(["dog", None, "", " . ", "cat"], ["Dog", "dog", "dog", "dog", "dog"])
    assert scores.correct.tolist() == [True, False, False, False, False]
    assert scores.failed.tolist() == [False, True, True, True, False]
    assert (scores.n, scores.n_failed, scores.accuracy) == (5, 3, 20.0)


def test_no_samples_have_no_accuracy() -> None:
    assert score_answers([], []).accuracy is None


def test_an_article_alone_is_an_answer() -> None:
    assert not is_failed("A")
    assert is_correct("a.", "A")


def test_empty_expected_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="is empty"):
        is_correct("", " . ")


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 answers for 1 expected"):
        score_answers(["a", "b"], ["a"])
