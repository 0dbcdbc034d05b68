"""data/rewording.py: the same text and seed give the same words, others give others."""

from data.rewording import reworded

QUESTION = "What is the main source of sound in the video?"


def test_reworded() -> None:
    found = reworded(QUESTION, 12)
    assert found == reworded(QUESTION, 12)
    assert found != reworded(QUESTION, 12, seed=1)
    assert 8 < len(found) == len(set(found)) <= 12 and QUESTION not in found
    assert found[:4] == reworded(QUESTION, 4)[:4]  # a longer list starts as a shorter one
    assert all(text[0].isupper() and text[-1] in "?." and "  " not in text for text in found)
    assert reworded(QUESTION, 0) == []
