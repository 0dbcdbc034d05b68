"""data/rewording.py: the same text and seed give the same words, others give others."""

import re

from data.rewording import Rules, reworded, rule_words

QUESTION = "What is the main source of sound in the video?"


def test_reworded() -> None:
    found = reworded(QUESTION, 12)
    assert found == reworded(QUESTION, 12)
    assert found != reworded(QUESTION, 12, seed=1)
    assert 8 < len(found) == len(set(found)) <= 12 and QUESTION not in found
    assert found[:4] == reworded(QUESTION, 4)[:4]  # a longer list starts as a shorter one
    assert found[0] == "What is the main source of"  # cut short
    assert all(text[0].isupper() and text[-1] in "?." and "  " not in text for text in found[1:])
    assert reworded(QUESTION, 0) == []


def test_every_rule_can_be_drawn() -> None:
    rules = Rules.read()
    assert len(rules.ways) > 30 and len(rules.words) > 50
    for pattern, ways in rules.ways:
        assert ways
        for way in ways:
            assert way.count("{") == way.count("}") and "->" not in way
            assert all(int(group) <= pattern.groups for group in re.findall(r"\\(\d)", way))
    for _, others in rules.words:
        assert others.startswith("{") and others.endswith("}") and "|" in others


def test_ways_of_asking_keep_what_is_asked_about() -> None:
    found = reworded("Is the piano louder than the violin?", 20)[1:]
    assert all("piano" in text.lower() and "violin" in text.lower() for text in found)
    assert any(text.lower().index("violin") < text.lower().index("piano") for text in found)
    assert {"racket", "footage"} <= set(rule_words())
    assert not any("{" in text or "\\" in text for text in found)
