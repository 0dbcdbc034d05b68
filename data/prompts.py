"""Prompts in the v1 (Vicuna) template as token ids, media tags as sentinels.

    SYSTEM USER: QUESTION ASSISTANT:                 to be answered
    SYSTEM USER: QUESTION ASSISTANT: ANSWER</s>      to be learned from; labels are the answer and </s>

The text pieces between media tags are tokenised one by one, each with its own dummy prefix; BOS stands once,
at the start, for tokenizers that put one there. This is what the published LLaVA-style code does, and it is
kept to the id: `"\\n"` between two tags becomes two tokens.

LLaMA tokenizers are SentencePiece models. The tokenizer class of transformers 5 does not give their ids for a
text that starts with a space (it adds no dummy prefix there), so the SentencePiece model is run directly; any
other tokenizer is used as it is, with BOS if that is its habit (LLaMA, Mistral) and without if not (Qwen,
SmolLM).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.tags import TAG_KINDS, split_tags, starts_before_media
from model.language_model.splice import AUDIO_ID, IGNORE, IMAGE_ID, VIDEO_ID

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
SENTINELS = {"image": IMAGE_ID, "audio": AUDIO_ID, "video": VIDEO_ID}
SPACE = "\u2581"  # how SentencePiece writes a space


@dataclass(frozen=True)
class Prompt:
    """One tokenised prompt."""

    input_ids: Tensor  # (L,) int64, media as sentinels
    labels: Tensor | None  # (L,) int64, IGNORE except on the answer and </s>; None without an answer
    early: bool = False  # the question starts before the last medium


class PromptTokenizer:
    """Ids of text pieces, equal to those of the tokenizer that the backbone was trained with.

    Args:
        tokenizer: a transformers tokenizer. One with a SentencePiece `vocab_file` is replaced by that model
            and keeps its special tokens and the `legacy` flag of the `tokenizer_config.json` beside it: with
            the flag (also where it is not named, as when it was introduced), text after a special token gets
            a dummy prefix, without it not.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.bos_token_id: int | None = tokenizer.bos_token_id  # what prompts start with, None for nothing
        self.eos_token_id: int = tokenizer.eos_token_id
        self.eos_token: str = tokenizer.eos_token
        self.pad_token_id: int = (
            tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        )
        self._base = tokenizer
        self._pieces: Any = None
        file = getattr(tokenizer, "vocab_file", None)
        if file is not None and Path(file).suffix == ".model":
            from sentencepiece import SentencePieceProcessor

            self._pieces = SentencePieceProcessor(model_file=str(file))
            self.legacy = _legacy(Path(file).with_name("tokenizer_config.json"))
            special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
            self._special = {token: tokenizer.convert_tokens_to_ids(token) for token in special}
        elif list(tokenizer.encode("a"))[0] != self.bos_token_id:  # some name a BOS that they never put
            self.bos_token_id = None

    def encode(self, text: str) -> list[int]:
        """Ids of one text piece, without BOS; special tokens in the text become their ids."""
        if self._pieces is None:
            return list(self._base.encode(text, add_special_tokens=False))
        ids: list[int] = []
        for number, piece in enumerate(self._split_special(text)):
            if piece in self._special:
                ids.append(self._special[piece])
            elif piece:
                ids += self._encode_plain(piece, first=number == 0)
        return ids

    def _encode_plain(self, text: str, first: bool) -> list[int]:
        if self.legacy:
            return list(self._pieces.encode(text))
        text = text.replace(SPACE, " ")
        if first or text.startswith(" "):
            return list(self._pieces.encode(text))
        return list(self._pieces.encode("\n" + text))[
            len(self._pieces.encode("\n")) :
        ]  # prefix before "\n" only

    def _split_special(self, text: str) -> list[str]:
        """Special tokens and the text between them, in order; the longest token wins where several start."""
        pieces, rest = [], text
        while rest:
            starts = [(rest.find(token), -len(token), token) for token in self._special if token in rest]
            if not starts:
                break
            at, _, token = min(starts)
            pieces += [rest[:at], token]
            rest = rest[at + len(token) :]
        return [*pieces, rest]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of generated ids."""
        if self._pieces is not None and skip_special_tokens:
            special = set(self._special.values())
            return str(self._pieces.decode([token for token in ids if token not in special]))
        return str(self._base.decode(ids, skip_special_tokens=skip_special_tokens))


def build_prompt(tokenizer: Any, question: str, answer: str | None = None) -> Prompt:
    """Prompt ids of one question, with labels where an answer is given.

    Args:
        tokenizer: PromptTokenizer, or a transformers tokenizer to make one from (slow per prompt).
        question: human text with its media tags.
        answer: text to learn, None to leave the prompt open.
    """
    tokenizer = as_prompt_tokenizer(tokenizer)
    opened = f"{SYSTEM} USER: {question} ASSISTANT:"
    ids, early = _ids(tokenizer, opened), starts_before_media(question)
    if answer is None:
        return Prompt(torch.tensor(ids), None, early)
    closed = _ids(tokenizer, f"{opened} {answer}{tokenizer.eos_token}")
    same = 0  # a tokenizer may join the end of the prompt with the start of the answer
    while same < len(ids) and ids[same] == closed[same]:
        same += 1
    return Prompt(torch.tensor(closed), torch.tensor([IGNORE] * same + closed[same:]), early)


def question_ids(tokenizer: Any, question_text: str) -> Tensor:
    """Ids (L,) of the bare question (no BOS, tags or template), averaged by the "question" text feature."""
    return torch.tensor(as_prompt_tokenizer(tokenizer).encode(question_text), dtype=torch.int64)


def as_prompt_tokenizer(tokenizer: Any) -> PromptTokenizer:
    """The tokenizer itself if it is a PromptTokenizer already, else one made from it."""
    return tokenizer if isinstance(tokenizer, PromptTokenizer) else PromptTokenizer(tokenizer)


def _legacy(config: Path) -> bool:
    return not config.is_file() or json.loads(config.read_text(encoding="utf-8")).get("legacy") is not False


def _ids(tokenizer: PromptTokenizer, text: str) -> list[int]:
    ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    pieces = split_tags(text)
    for number, piece in enumerate(pieces):
        ids += tokenizer.encode(piece) if number % 2 == 0 else [SENTINELS[TAG_KINDS[piece]]]
    return ids
