"""data/spoilt_questions.py: the same text and seed give the same words, others give others."""

from data.spoilt_questions import misspelt, truncated

QUESTION = "What is the main source of sound in the video?"


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
