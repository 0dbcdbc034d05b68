"""data/rewording.py: the same text and seed give the same words, others give others."""

from data.rewording import misspelt, reworded, truncated

QUESTION = "What is the main source of sound in the video?"


def test_reworded() -> None:
    found = reworded(QUESTION, 12)
    assert found == reworded(QUESTION, 12)
    assert found != reworded(QUESTION, 12, seed=1)
    assert 8 < len(found) == len(set(found)) <= 12 and QUESTION not in found
    assert found[:4] == reworded(QUESTION, 4)[:4]  # a longer list starts as a shorter one
    assert all(text[0].isupper() and text[-1] in "?." and "  " not in text for text in found)
    assert reworded(QUESTION, 0) == []


def test_truncated() -> None:
    assert truncated(QUESTION) == "What is the main source of"
    assert truncated("Is it?", 0.5) == "Is"
    assert truncated("Why", 0.1) == "Why"


def test_misspelt() -> None:
    found = misspelt(QUESTION)
    assert found == misspelt(QUESTION) != QUESTION
    assert len({misspelt(QUESTION, seed) for seed in range(20)}) > 10
    changed = [pair for pair in zip(QUESTION.split(), found.split(), strict=True) if pair[0] != pair[1]]
    assert 1 <= len(changed) <= 2 and all(len(word) >= 4 for word, _ in changed)
    assert misspelt("Is it so?") == "Is it so?"  # no word is long enough
    for seed in range(50):
        assert misspelt("1234 zebra", seed)
