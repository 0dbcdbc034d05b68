"""Which vector stands for a question."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import data.text_features as text_features
from data.text_features import (
    TextFeatures,
    check_choice,
    may_be_kind,
    usual_new_level,
    usual_rewordings,
    weigh_rewordings,
)
from model.encoders.text import TextEncoder

VISION = Path("clip")


class Letters:
    """One id per character."""

    bos_token_id = 1

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


@pytest.fixture
def llm() -> Any:
    embedding = torch.nn.Embedding.from_pretrained(torch.arange(256.0)[:, None].expand(256, 4).contiguous())
    return SimpleNamespace(get_input_embeddings=lambda: embedding)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was encoded: encoders and hidden states are stood in for."""
    seen: list[Any] = []

    def encoder(source: Any, device: Any) -> TextEncoder:
        def encode(text: str) -> Tensor:
            seen.append((str(source), text))
            return torch.ones(3)

        return TextEncoder(encode, "0123456789abcdef" * 4)

    def hidden(llm: Any, ids: Tensor, layer: int, bos_id: int | None) -> Tensor:
        seen.append((layer, ids.tolist(), bos_id))
        return torch.ones(4)

    monkeypatch.setattr(text_features, "load_clip_text", encoder)
    monkeypatch.setattr(text_features, "load_encoder_folder", encoder)
    monkeypatch.setattr(text_features, "mean_hidden_state", hidden)
    monkeypatch.setattr(text_features, "question_ids", lambda t, text: torch.tensor(t.encode(text)))
    return seen


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


def test_every_distinct_text_is_encoded_once_and_kinds_name_the_weights(
    llm: Any, asked: list[Any], folder: str
) -> None:
    tokenizer: Any = Letters()
    for choice, kind, call in (
        ("hidden:2", "hidden:2", (2, [97, 98], 1)),
        ("clip", "clip:0123456789abcdef", ("clip", "ab")),
        (folder, "encoder:0123456789abcdef", (folder, "ab")),
    ):
        made = TextFeatures(choice, llm, tokenizer, VISION)
        assert made.kind == kind and may_be_kind(kind, choice)
        assert torch.equal(made.of_question("ab"), made.of_question("ab"))
        assert asked == [call]
        asked.clear()
    assert TextFeatures("question", llm, tokenizer).of_question("ac").tolist() == [98.0] * 4 and not asked


def test_an_encoder_of_word_pieces_reads_mended_words(
    llm: Any, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def encode(text: str) -> Tensor:
        read.append(text)
        return torch.zeros(3)

    words = ("what", "sound")
    monkeypatch.setattr(
        text_features, "load_encoder_folder", lambda *_: TextEncoder(encode, "0123456789abcdef" * 4, words)
    )
    made = TextFeatures(folder, llm, cast("Any", Letters()))
    made.of_question("What suond?")
    assert read == ["What sound?"] and made.kind == "encoder:0123456789abcdef:mended"
    assert may_be_kind(made.kind, folder)
    assert (usual_rewordings(folder), usual_rewordings("question")) == (2000, 0)
    assert (usual_new_level(folder), usual_new_level("question")) == (0.02, 0.005)
    assert (usual_new_level(folder, 0), usual_new_level("question", 9)) == (0.005, 0.02)


def test_kinds_of_other_choices_are_told_apart(folder: str) -> None:
    assert not may_be_kind("hidden:2", "hidden:3") and not may_be_kind("question", "prompt")
    assert not may_be_kind("question", "clip") and not may_be_kind("clip:1", folder)


def test_wrong_choices_raise(llm: Any, tmp_path: Path) -> None:
    tokenizer: Any = Letters()
    for wrong in ("bag", "hidden:", "hidden:-1", "hidden:x", str(tmp_path / "nowhere")):
        with pytest.raises(ValueError, match="expected question, prompt, hidden:L, clip, or the folder"):
            check_choice(wrong)
    with pytest.raises(ValueError, match="no CLIP checkpoint is given"):
        TextFeatures("clip", llm, tokenizer)


def test_rewordings_share_the_root_of_a_count() -> None:
    weights = weigh_rewordings({"What is shown in the video?": 9, "Why?": 4}, 50)
    assert "What is shown in the video?" not in weights and len(weights) > 20
    assert len(weigh_rewordings({"What is shown?": 10_000, "Where is the dog?": 1}, 202)) in range(150, 203)
    assert sum(weights.values()) == pytest.approx(3 + 2)
    one = weigh_rewordings({"What is shown in the video?": 9, "Why?": 4}, 50, of={"Why?"})
    assert 0 < len(one) < len(weights) and sum(one.values()) == pytest.approx(2)
    assert weigh_rewordings({"Why?": 4}, 0) == {"Why?": 2}
