"""Scenes of the language stage and the questions about them.

Letters: B scenes, J questions per scene, 2 things or voices per scene at most.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.prompts import PromptTokenizer
from scripts.make_tiny_backbone import text
from scripts.make_tiny_backbone.bank import Bank
from scripts.tiny_world.kinds import CATEGORIES

SHARES = {"A": 0.4, "B": 0.27, "C": 0.15, "D": 0.18}  # clip types as in scripts/tiny_world/scene.py


HEARD, SEEN, SITE = 0, 1, 2  # a voice, a look, a place


@dataclass(frozen=True)
class Cast:
    """Which kinds and places are in B scenes."""

    types: list[str]
    seen: Tensor  # (B, 2) kinds, -1 none
    heard: Tensor  # (B, 2) kinds, the main one first, -1 none
    second_db: Tensor  # (B,) level of the second voice
    place: Tensor  # (B,)


@dataclass(frozen=True)
class Question:
    """One question with its answer as token ids."""

    words: str
    answer: list[int]
    topic: int = -1  # what the answer is about, for the auxiliary loss: HEARD, SEEN or SITE, -1 nothing
    target: int = -1  # number of that kind or place


def draw_cast(rng: np.random.Generator, batch: int, kinds: np.ndarray, places: np.ndarray) -> Cast:
    """Scenes of all clip types from the given kinds and places."""
    types = [str(t) for t in rng.choice(list(SHARES), batch, p=list(SHARES.values()))]
    seen, heard = np.full((batch, 2), -1), np.full((batch, 2), -1)
    for row, kind_of_clip in enumerate(types):
        main, partner, hidden = rng.choice(kinds, 3, replace=False)
        seen[row, 0] = main if kind_of_clip != "C" else partner
        if kind_of_clip in "BD":
            seen[row, 1] = partner
        heard[row, 0] = main
        if kind_of_clip == "D":
            heard[row, 1] = hidden
    second_db = torch.from_numpy(rng.uniform(-4, 4, batch)).float()
    place = torch.from_numpy(rng.choice(places, batch))
    return Cast(types, torch.from_numpy(seen), torch.from_numpy(heard), second_db, place)


class Asker:
    """Turns casts into questions."""

    def __init__(self, bank: Bank, tokenizer: PromptTokenizer, wordings: text.Wordings) -> None:
        self.bank, self.wordings = bank, wordings
        self.plain = {answer: tokenizer.encode(answer) for answer in text.PLAIN_ANSWERS}

    def ask(
        self, rng: np.random.Generator, cast: Cast, row: int, centre_2: Tensor, names: text.Names, count: int
    ) -> list[Question]:
        """`count` questions about scene `row`; the first two about its main voice and its place."""

        def pick(phrases: tuple[str, ...]) -> str:
            return phrases[int(rng.integers(len(phrases)))]

        facts, asked = self.bank.kind_facts, self.wordings

        def name(phrases: tuple[str, ...], kind: int, topic: int) -> Question:
            called = names.looks if topic == SEEN else names.voices
            sort = CATEGORIES[facts[kind, 0]] if rng.random() < 0.8 else "thing"
            return Question(pick(phrases).format(sort=sort), called[kind], topic, kind)

        clip = cast.types[row]
        first, second = cast.seen[row].tolist()
        main, hidden = cast.heard[row].tolist()
        place = int(cast.place[row])
        where = Question(pick(asked.place), names.places[place], SITE, place)
        sort = Question(pick(text.SORT), self.plain[text.SORTS[facts[main, 0]]])
        event = Question(pick(asked.event), names.voices[main] + names.actions[main], HEARD, main)
        if clip == "D":
            hear = name(asked.both, main, HEARD)
            more = [name(text.HIDDEN, hidden, HEARD), name(asked.both, main, SEEN)]
        else:
            hear = name(asked.heard, main, HEARD)
            more = [event, event, sort, name(asked.heard, main, HEARD)]
        match = "no" if clip == "C" else "yes"
        more += [Question(pick(text.MATCH), self.plain[match])]
        if clip in "BD":
            left = 0 if centre_2[0] < centre_2[1] else 1
            pair = (first, second)
            side = self.plain["left" if left == 0 else "right"]
            more += [name(text.LEFT, pair[left], SEEN), name(text.RIGHT, pair[1 - left], SEEN)]
            more += [
                name(text.SILENT, second, SEEN),
                name(asked.both, main, HEARD),
                Question(pick(text.SIDE), side),
            ]
        else:
            texture = self.plain[text.TEXTURE_WORDS[facts[first, 2]]]
            more += [name(asked.seen, first, SEEN), Question(pick(text.TEXTURE), texture)]
            if clip == "C":
                more += [name(text.HIDDEN, main, HEARD), name(text.SILENT, first, SEEN)]
            else:
                more += [name(asked.seen, first, SEEN), name(asked.both, main, HEARD)]
        chosen = rng.choice(len(more), count - 2, replace=False)
        return [hear, where, *(more[i] for i in chosen)]
