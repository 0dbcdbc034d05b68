"""The text half of routing: which vector stands for a question.

    question   mean input embedding of the question's tokens
    prompt     the same over the whole prompt, as published
    hidden:L   mean over the question's tokens of the frozen LLM's layer L (0 embeddings, 1 first layer, ...)
    clip       text half of the CLIP checkpoint
    DIR        folder of a Hugging Face encoder, mean over its tokens

Anchors keep the kind, which names the weights that the backbone's identity does not cover (`clip:DIGEST`,
`encoder:DIGEST`, with `:mended` where misspelt words are mended first, see spelling.py): an anchor and a
question of different kinds do not meet. Every distinct text is encoded once, alone: its vector does not
depend, to the bit, on what was asked before or with it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.prompts import PromptTokenizer, question_ids
from data.rewording import reworded
from data.spelling import Spelling
from model.encoders.text import TextEncoder, load_clip_text, load_encoder_folder
from model.language_model.hidden import mean_hidden_state
from model.moe.new_words import level_for

CHOICES = "question, prompt, hidden:L, clip, or the folder of a Hugging Face encoder"
_HIDDEN, _CLIP, _ENCODER = "hidden:", "clip", "encoder"


def check_choice(choice: str) -> str:
    """The choice itself, where it is one.

    Raises:
        ValueError: neither a name above nor a folder with a `config.json`.
    """
    named = choice in ("question", "prompt", _CLIP)
    layer = choice.removeprefix(_HIDDEN)
    if named or (layer != choice and layer.isdigit()) or (Path(choice) / "config.json").is_file():
        return choice
    raise ValueError(f"text_feature: got {choice!r}, expected {CHOICES}")


def may_be_kind(kind: str, choice: str) -> bool:
    """Whether features of this choice can be of that kind, told without loading any weights."""
    family = _CLIP if choice == _CLIP else _ENCODER if (Path(choice) / "config.json").is_file() else None
    return kind == choice if family is None else kind.startswith(f"{family}:")


def usual_rewordings(choice: str) -> int:
    """Rewordings of a task's questions that its anchor knows where no number is given: 2000 with an encoder's
    folder, 0 with what the backbone has, which they help little (docs/routers_examined.md)."""
    return 2000 if (Path(choice) / "config.json").is_file() else 0


def usual_new_level(choice: str, rewordings: int | None = None) -> float:
    """The `new_level` a command records where none is given, as `usual_level` of anchors that know about so
    many rewordings; None: as many as usual, since evaluation records it before it has read any anchor."""
    number = usual_rewordings(choice) if rewordings is None else rewordings
    return level_for(reworded=number > 0)


def mending_encoder(folder: str | Path, device: str | torch.device = "cpu") -> TextEncoder:
    """The encoder of a folder; if it reads word pieces, misspelt words are mended first.

    Raises:
        ValueError: see `load_encoder_folder`.
    """
    encoder = load_encoder_folder(folder, device)
    spelling = Spelling(encoder.words)
    return replace(encoder, encode=lambda text: encoder.encode(spelling.mended(text)))


def weigh_rewordings(
    asked: Mapping[str, int], number: int, of: Container[str] | None = None
) -> dict[str, float]:
    """Rewording -> weight, of about `number` rewordings of a task's questions, question -> how often.

    Those of one question share the root of its count: how often one wording was used says little about how
    often it will be. As many are drawn of it as it weighs, two at least, so that all weigh about the same. A
    question that has no rewording stands for itself. Given `of`, those of these questions alone are returned.
    """
    total = sum(count**0.5 for count in asked.values())
    weights: dict[str, float] = {}
    for text, count in asked.items():
        if of is not None and text not in of:
            continue
        own = max(2, round(number * count**0.5 / total)) if number else 0
        others = reworded(text, own) or [text]
        for other in others:
            weights[other] = weights.get(other, 0.0) + count**0.5 / len(others)
    return weights


class TextFeatures:
    """Vectors of questions, for one backbone.

    Args:
        choice: one of CHOICES.
        llm: the backbone's.
        tokenizer: the LLM's.
        vision: folder of the CLIP checkpoint, or `open_clip:...`; None if it is not known.

    Raises:
        ValueError: no such choice, or its weights are missing or unreadable.
    """

    def __init__(
        self, choice: str, llm: Any, tokenizer: PromptTokenizer, vision: str | Path | None = None
    ) -> None:
        self.choice = check_choice(choice)
        self.llm, self.tokenizer = llm, tokenizer
        self.embedding = llm.get_input_embeddings()
        self._encoder: TextEncoder | None = None
        self._layer: int | None = None
        self.kind = choice
        device = self.embedding.weight.device
        if choice.startswith(_HIDDEN):
            self._layer = int(choice.removeprefix(_HIDDEN))
        elif choice == _CLIP:
            if vision is None:
                raise ValueError("text_feature clip: no CLIP checkpoint is given")
            self._encoder = load_clip_text(vision, device)
            self.kind = f"{_CLIP}:{self._encoder.fingerprint[:16]}"
        elif choice not in ("question", "prompt"):
            self._encoder = mending_encoder(choice, device)
            mended = ":mended" if self._encoder.words else ""
            self.kind = f"{_ENCODER}:{self._encoder.fingerprint[:16]}{mended}"
        self._known: dict[str, Tensor] = {}

    def of_question(self, text: str) -> Tensor:
        """The vector of a question without tags; not for `prompt`. (W,) float32 on the CPU"""
        if text not in self._known:
            self._known[text] = self._of(text)
        return self._known[text]

    def of_rewordings(self, asked: Mapping[str, int], number: int) -> tuple[Tensor, Tensor]:
        """Vectors (M, W) of about `number` rewordings of a task's questions, and their weights (M,).

        asked: question -> how often; see `weigh_rewordings`.
        """
        weights = weigh_rewordings(asked, number)
        return torch.stack([self.of_question(text) for text in weights]), torch.tensor(list(weights.values()))

    def _of(self, text: str) -> Tensor:
        if self._encoder is not None:
            return self._encoder.encode(text)
        ids = question_ids(self.tokenizer, text)
        if self._layer is None:
            return self.mean_embedding(ids)
        return mean_hidden_state(self.llm, ids, self._layer, self.tokenizer.bos_token_id)

    @torch.no_grad()
    def mean_embedding(self, ids: Tensor) -> Tensor:
        """Mean input embedding of the ids (L,) that are no media. (D,) float32 on the CPU"""
        ids = ids[ids >= 0].to(self.embedding.weight.device)
        return self.embedding.weight[ids].detach().float().mean(0).cpu()
