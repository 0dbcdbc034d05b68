from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from data.tags import TAG_KINDS, remove_tags, split_tags, tag_kinds, unknown_tags

PIECES = st.sampled_from([*TAG_KINDS, "\n", " ", "word", "a < b", "", "?"])
TEXTS = st.lists(PIECES, max_size=12).map("".join)


@given(TEXTS)
def test_splitting_loses_nothing(text: str) -> None:
    pieces = split_tags(text)
    assert "".join(pieces) == text
    assert len(pieces) == 2 * len(tag_kinds(text)) + 1


@given(TEXTS)
def test_removing_all_tags_leaves_none_and_keeps_every_word(text: str) -> None:
    bare = remove_tags(text)
    assert tag_kinds(bare) == []
    words = "".join(piece for piece in split_tags(text)[::2])
    assert "".join(bare.split()) == "".join(words.split())


@given(TEXTS, st.integers(0, 5))
def test_removing_one_tag_keeps_the_others_in_order(text: str, number: int) -> None:
    kinds = tag_kinds(text)
    left = tag_kinds(remove_tags(text, lambda tag: tag == number))
    assert left == kinds[:number] + kinds[number + 1 :]


def test_a_line_of_removed_tags_goes_and_an_empty_line_stays() -> None:
    assert remove_tags("<video>\n<audio>\n\nWhat?\n<image> and <audio>") == "\nWhat?\n and "


def test_text_without_tags_is_untouched() -> None:
    assert remove_tags("a\n\n  b\n") == "a\n\n  b\n"


def test_unknown_tags() -> None:
    assert unknown_tags("<video> <Video> </s> <s> <foo-bar> <0x0A> <|end|> <unk/>") == [
        "<Video>",
        "</s>",
        "<s>",
        "<foo-bar>",
        "<0x0A>",
        "<|end|>",
        "<unk/>",
    ]
    assert unknown_tags("1 < 2 > 0, a<b, x <- y, <3, <<>>") == []
