"""Normalised match: what it forgives beyond exact match, what it does not, and alias files."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.problems import InputError
from evaluation.alias_files import alias_file, read_aliases
from evaluation.scoring.answers import is_correct, is_failed
from evaluation.scoring.normalised import NO_ALIASES, Aliases, loosen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("acoustic_guitar", "acoustic guitar"),
        ("Dog's bark!", "dogs bark"),
        ("(the) Sea", "sea"),
        ("two", "2"),
        ("Twenty-one dogs", "21 dogs"),
        ("ninety nine", "99"),
        ("twenty", "20"),
        ("twenty eleven", "20 11"),
        ("thirty forty two", "30 42"),
        ("1,000", "1000"),
        ("3.5 m.", "3.5 m"),
        ("yes, sir", "yes sir"),
        ("caf\u00e9", "cafe"),
        ("\ufb01re", "fire"),
        ("A.", "a"),
        ("?", "?"),
        (" . ", ""),
    ],
)
def test_loosen(text: str, expected: str) -> None:
    assert loosen(text) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("dogs", "dog"), ("dog cat", "cat dog"), ("3.5", "35"), ("none", "one"), ("?", "!"), ("", "one")],
)
def test_meaning_is_not_forgiven(answer: str, expected: str) -> None:
    assert not NO_ALIASES.matches(answer, expected)


@given(st.text(max_size=20), st.text(max_size=20))
def test_an_exact_match_is_a_normalised_one(answer: str, expected: str) -> None:
    if not is_failed(expected):
        for given_answer in (answer, f" The {expected}. "):
            if is_correct(given_answer, expected):
                assert NO_ALIASES.matches(given_answer, expected)
    assert bool(loosen(answer)) == (not is_failed(answer))


@given(st.lists(st.sampled_from(["twenty", "one", "the", "dog-ear", "3.5", "1,000", "it's"]), max_size=5))
def test_loosening_twice_changes_nothing(words: list[str]) -> None:
    once = loosen(" ".join(words))
    assert loosen(once) == once


def test_aliases_count_both_ways() -> None:
    aliases = Aliases.from_lists({"Airplane": ["plane", "aero-plane", "airplane."], "2": ["a pair"]})
    assert aliases.matches("The Plane!", "airplane") and aliases.matches("airplane", "plane")
    assert aliases.matches("pair", "two") and aliases.matches("aero plane", "plane")
    assert not aliases.matches("pair", "plane")
    assert not aliases.matches(None, "plane") and not aliases.matches(" . ", "plane")


def test_all_spellings_of_an_answer() -> None:
    aliases = Aliases.from_lists({"Airplane": ["plane", "aero-plane"], "2": ["a pair"]})
    assert (
        aliases.spellings("A Plane") == aliases.spellings("airplane") == ("airplane", "plane", "aero plane")
    )
    assert aliases.spellings("two") == ("2", "pair") and aliases.spellings("a dog") == ("dog",)


def test_the_alias_file_lies_beside_the_benchmark(tmp_path: Path) -> None:
    benchmark = tmp_path / "avqa.json"
    assert alias_file(benchmark) is None
    assert read_aliases(None) == NO_ALIASES
    path = tmp_path / "avqa.aliases.json"
    path.write_text('{"train": ["railway train"]}')
    assert alias_file(benchmark) == path
    assert read_aliases(path).matches("railway train", "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "got \\[\\], expected"),
        ({"dog": "hound"}, "index 0: answer 'dog': got 'hound', expected a list of texts"),
        ({"dog": [1]}, "expected a list of texts"),
        ({".": ["x"]}, "answer '.' is empty"),
        ({"dog": [""]}, "accepts the empty text ''"),
        ({"dog": ["animal"], "cat": ["Animal"]}, "'cat': accepts 'Animal', which stands for 'dog' too"),
        ({"dog": ["cat"], "cat": []}, "'dog': accepts 'cat', which stands for 'cat' too"),
        ({"two": [], "2": []}, "'two' and '2' are the same after normalisation"),
    ],
)
def test_malformed_alias_files(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "x.aliases.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        read_aliases(path)
    assert str(path) in str(caught.value)
