"""Prompts with small tokenizers; the published ids are held in tests/parity/avqacl_prompts.py."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.prompts import SYSTEM, PromptTokenizer, as_prompt_tokenizer, build_prompt, question_ids
from model.language_model.splice import AUDIO_ID, IGNORE, IMAGE_ID, VIDEO_ID


class Words:
    """A tokenizer without a SentencePiece file: one id per character, BOS at the start."""

    bos_token_id, eos_token_id, eos_token, pad_token_id = 1, 2, "</s>", 0

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = [self.bos_token_id] if add_special_tokens and self.bos_token_id else []
        while text:
            special = text.startswith("</s>")
            ids.append(2 if special else 10 + ord(text[0]))
            text = text[4 if special else 1 :]
        return ids

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(chr(i - 10) for i in ids if i > 9 or not skip_special_tokens)


class NoBos(Words):
    bos_token_id = None  # type: ignore[assignment]


class UnusedBos(Words):
    """Names a BOS and never puts it, as the tokenizers of SmolLM do."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return super().encode(text, False)


class Joining(Words):
    """Joins the colon with the following space, so that the answer begins inside a token."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids: list[int] = []
        for number, part in enumerate(text.split(": ")):
            ids += [5] * (number > 0) + super().encode(part, add_special_tokens)
        return ids


@pytest.fixture(scope="module")
def sentence_piece(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A LLaMA-style SentencePiece tokenizer learned from one sentence."""
    import sentencepiece
    from transformers import LlamaTokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([SYSTEM] * 3),
        model_writer=model,
        model_type="bpe",
        vocab_size=320,
        byte_fallback=True,
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
    )

    def make(legacy: bool | None) -> Any:
        folder = tmp_path_factory.mktemp("tokenizer")
        Path(folder / "tokenizer.model").write_bytes(model.getvalue())
        flag = {} if legacy is None else {"legacy": legacy}
        config = {
            "tokenizer_class": "LlamaTokenizer",
            "unk_token": "<unk>",
            "bos_token": "<s>",
            "eos_token": "</s>",
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config | flag))
        return LlamaTokenizer.from_pretrained(folder)

    return make


def text_of(ids: list[int]) -> str:
    return Words().decode([i for i in ids if i >= 0], skip_special_tokens=True)


def test_the_template() -> None:
    ids = build_prompt(Words(), "<video>\nWhat?").input_ids.tolist()
    assert ids[0] == 1
    assert ids.count(VIDEO_ID) == 1
    assert text_of(ids) == f"{SYSTEM} USER: \nWhat? ASSISTANT:"


@pytest.mark.parametrize("tokenizer", [NoBos(), UnusedBos()])
def test_bos_is_put_where_the_tokenizer_puts_it(tokenizer: Words) -> None:
    ids = build_prompt(tokenizer, "<video>\nWhat?", "dog").input_ids.tolist()
    assert ids[0] == 10 + ord(SYSTEM[0]) and 1 not in ids


def test_sentinels_stand_where_the_tags_were() -> None:
    ids = build_prompt(NoBos(), "<image>a<audio><video>b").input_ids.tolist()
    start = ids.index(IMAGE_ID)
    a, b = 10 + ord("a"), 10 + ord("b")
    assert ids[start : start + 5] == [IMAGE_ID, a, AUDIO_ID, VIDEO_ID, b]
    assert ids[0] == 10 + ord(SYSTEM[0])


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "Zs"]), min_size=1, max_size=20))
def test_labels_are_the_answer_and_the_end(answer: str) -> None:
    prompt = build_prompt(Words(), "<audio>\nWhat?", answer)
    assert prompt.labels is not None
    ids, labels = prompt.input_ids.tolist(), prompt.labels.tolist()
    learned = [i for i, label in zip(ids, labels, strict=True) if label != IGNORE]
    assert [label for label in labels if label != IGNORE] == learned
    assert text_of(learned) == f" {answer}"
    assert learned[-1] == 2
    opened = build_prompt(Words(), "<audio>\nWhat?").input_ids.tolist()
    assert ids[: len(opened)] == opened


@pytest.mark.parametrize(
    ("question", "early"),
    [
        ("<video>\n<audio>\nWhat?", False),
        ("What?\n<video>", True),
        ("<video>\nand what is heard here: <audio>\nWhat?", True),
        ("<audio> \n What?", False),
        ("What?", False),
    ],
)
def test_a_question_may_start_before_its_media(question: str, early: bool) -> None:
    for answer in (None, "dog"):
        assert build_prompt(Words(), question, answer).early is early


def test_labels_where_the_tokenizer_joins_prompt_and_answer() -> None:
    prompt = build_prompt(Joining(), "What?", "dog")
    assert prompt.labels is not None
    learned = prompt.labels[prompt.labels != IGNORE].tolist()
    assert (learned[0], text_of(learned[1:]), learned[-1]) == (5, "dog", 2)


def test_question_ids_have_no_bos_and_no_template() -> None:
    assert text_of(question_ids(Words(), "What?").tolist()) == "What?"
    assert 1 not in question_ids(Words(), "What?")


@pytest.mark.parametrize("legacy", [False, True, None])
def test_every_piece_gets_its_dummy_prefix(sentence_piece: Any, legacy: bool | None) -> None:
    tokenizer = PromptTokenizer(sentence_piece(legacy))
    assert tokenizer.legacy == (legacy is not False)
    for text in ("the user", " the user", "\n", "  and"):
        ids = tokenizer.encode(text)
        assert ids == tokenizer._pieces.encode(text)
        pieces = "".join(tokenizer._pieces.id_to_piece(ids)).replace("<0x0A>", "\n")
        assert pieces.replace("\u2581", " ") == " " + text


def test_legacy_decides_what_follows_a_special_token(sentence_piece: Any) -> None:
    old, new = (PromptTokenizer(sentence_piece(legacy)) for legacy in (True, False))
    after = old._pieces.encode("user")
    assert old.encode("A</s>user") == [*old.encode("A"), 2, *after]
    plain = new.encode("A</s>user")
    assert "".join(new._pieces.id_to_piece(plain[plain.index(2) + 1 :])) == "user"  # no dummy prefix
    assert new.encode("A</s> user") == [*new.encode("A"), 2, *new._pieces.encode(" user")]
    assert new.encode("</s>") == old.encode("</s>") == [2]


def test_answers_are_decoded_again(sentence_piece: Any) -> None:
    tokenizer = PromptTokenizer(sentence_piece(False))
    prompt = build_prompt(tokenizer, "What?", "a helpful user")
    assert prompt.labels is not None
    learned = prompt.labels[prompt.labels != IGNORE].tolist()
    assert tokenizer.decode(learned).strip() == "a helpful user"


def test_a_prompt_tokenizer_is_made_once() -> None:
    tokenizer = PromptTokenizer(Words())
    assert as_prompt_tokenizer(tokenizer) is tokenizer
    assert isinstance(as_prompt_tokenizer(Words()), PromptTokenizer)
