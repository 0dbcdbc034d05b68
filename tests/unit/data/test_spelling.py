"""data/spelling.py: slips are mended, known and short words and other alphabets are left alone."""

import pytest

from data.rewording import rule_words
from data.spelling import Spelling
from data.spoilt_questions import misspelt

WORDS = ["what", "that", "is", "the", "sound", "video", "people", "places"]


@pytest.fixture
def spelling() -> Spelling:
    return Spelling(WORDS)


def test_one_slip_is_mended(spelling: Spelling) -> None:
    assert spelling.mended("What is teh suond in the vido?") == "What is teh sound in the video?"
    assert spelling.mended("Peeople in the vidwo, poeple") == "people in the video, people"
    assert spelling.mended("hwat") == "what"  # swapped; `that` is two slips away


def test_what_is_known_or_far_stays(spelling: Spelling) -> None:
    assert "racket" in rule_words() and "racket" not in WORDS
    for text in ("What racket is the sound?", "guzheng", "tha vxdxo", "d\u00e9j\u00e0 vu \uff1f"):
        assert spelling.mended(text) == text
    assert Spelling([]).mended("the suond") == "the suond"  # an encoder that has no word pieces


def test_words_of_the_rules_come_first_then_frequent_ones() -> None:
    assert "place" in rule_words()
    assert Spelling(["plane"]).mended("plene") == "plane"
    assert Spelling(["plane", "place"]).mended("plake") == "place"
    assert not {"harp", "hard"} & set(rule_words())
    assert Spelling(["harp", "hard"]).mended("harx") == "harp"


def test_most_slips_of_a_question_are_mended() -> None:
    question = "What are the people doing in the video?"
    spelling = Spelling([*WORDS, "are", "doing"])
    mended = [spelling.mended(misspelt(question, seed)).lower() for seed in range(20)]
    assert mended.count(question.lower()) >= 13  # the others: short words, and several known words near
