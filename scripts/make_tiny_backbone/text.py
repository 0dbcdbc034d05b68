"""What is asked and answered in pre-training.

Answers are made-up names of unnamed kinds and places, put together from word pieces, or plain attributes; no
question is worded as one of the tasks'.
"""

from dataclasses import dataclass

import numpy as np

from scripts.make_tiny_backbone.words import word_list
from scripts.tiny_world.questions import answer_vocabulary

HEARD = (
    "Name what you hear.",
    "Give the name of the sounding thing.",
    "Listen: who is it?",
    "Tell me the name that belongs to this sound.",
    "What do you hear here?",
    "By its sound, name the thing.",
    "Name the main voice in the recording.",
    "Whose voice can be heard?",
    "State the source that you hear.",
    "Identify the thing heard most clearly.",
    "What thing does the audio come from? Name it.",
    "Say which thing makes a noise.",
)
SEEN = (
    "Name what you see.",
    "Give the name of the visible thing.",
    "Look: what is it?",
    "Tell me the name of the thing in view.",
    "By its look, name the thing.",
    "Identify the thing that is shown.",
    "What thing is in the picture? Name it.",
)
LEFT = ("Name the thing on the left.", "What is to the left? Name it.", "Which name has the left thing?")
RIGHT = ("Name the thing on the right.", "What is to the right? Name it.", "Which name has the right thing?")
PLACE = (
    "Name the place.",
    "Give the name of this setting.",
    "Look behind: name the location.",
    "Tell me where we are.",
    "In what surroundings is this? Name them.",
    "Identify the background of the scene.",
    "What is this location called?",
    "At which spot was the clip filmed?",
)
EVENT = (
    "Describe the action.",
    "Tell me what goes on.",
    "Say what the thing does.",
    "What action can be seen and heard?",
    "Sum up the event in a few words.",
    "Describe what occurs here.",
)
BOTH = (
    "Name the visible thing that can also be heard.",
    "Of what you see, which one sounds?",
    "Which shown thing is the noisy one? Name it.",
    "Name the one in view whose voice is heard.",
    "Among the things in the picture, name the one making noise.",
)
HIDDEN = (
    "Name what is heard but not seen.",
    "Which voice comes from outside the view?",
    "Name the hidden source.",
)
SILENT = ("Name what is seen but not heard.", "Which visible thing is silent? Name it.")
SIDE = ("On which side is the noisy thing?", "Is the heard thing left or right?")
MATCH = ("Does the picture fit the sound?", "Is the heard thing in view?")
SORT = ("What sort of thing is heard?", "To which class belongs the sound?")
SORTS = ("an animal", "an instrument", "a vehicle", "an object")
TEXTURE = ("What pattern has the visible thing?", "Describe its surface.")
TEXTURE_WORDS = ("plain", "striped", "dotted", "patchy", "hairy", "banded", "netted")
MORE_HEARD = (
    "What do you hear?",
    "What can be heard?",
    "What thing makes this noise?",
    "What is the origin of the noise?",
    "Which {sort} do you hear?",
    "Which {sort} can be heard in the clip?",
    "Where does this noise come from?",
    "Where do these sounds come from?",
    "From what does the audio come?",
    "What produces the noise in this clip?",
    "Which {sort} makes the noise in this clip?",
    "Who is making this noise?",
    "What is the cause of the sound?",
    "Which {sort} is the sound in the recording from?",
    "What {sort} is heard in the video?",
    "The sound is made by what?",
    "What are the main things heard?",
)
MORE_BOTH = (
    "Which visible {sort} can also be heard?",
    "Which {sort} in the picture makes noise?",
    "Which of the shown things sounds?",
    "Which {sort} that you see is making the noise?",
    "Which {sort} seen here makes the sound heard here?",
    "Of all {sort}s in the picture, which one is heard?",
)
MORE_SEEN = (
    "Which {sort} is in the picture?",
    "What {sort} do you see?",
    "What can be seen?",
    "Which {sort} is shown?",
    "What is the {sort} that the video shows?",
)
MORE_PLACE = (
    "Where is this?",
    "Where are we?",
    "Where was it filmed?",
    "Where does this happen?",
    "Where was the clip recorded?",
    "Where is the camera?",
    "Where did it take place?",
    "Where is the picture from?",
    "What place is this?",
    "What kind of place is it?",
    "In which place does the video play?",
    "What location does the scene show?",
    "Where in the world is the scene?",
    "Where was the video made?",
)
MORE_EVENT = (
    "What happens here?",
    "What is going on here?",
    "What is being done?",
    "What takes place in this clip?",
    "What is the event in the video?",
    "What did happen here?",
    "What event is this?",
    "What is it doing?",
    "What is happening now?",
)


@dataclass(frozen=True)
class Wordings:
    """Ways to ask for each thing; `{sort}` stands for the category of what is asked for."""

    heard: tuple[str, ...] = HEARD
    seen: tuple[str, ...] = SEEN
    both: tuple[str, ...] = BOTH
    place: tuple[str, ...] = PLACE
    event: tuple[str, ...] = EVENT

    def all(self) -> tuple[str, ...]:
        """Every wording."""
        asked = (*self.heard, *self.seen, *self.both, *self.place, *self.event)
        return (*asked, *LEFT, *RIGHT, *HIDDEN, *SILENT, *SIDE, *MATCH, *SORT, *TEXTURE)


FEW = Wordings()
MANY = Wordings(
    HEARD + MORE_HEARD, SEEN + MORE_SEEN, BOTH + MORE_BOTH, PLACE + MORE_PLACE, EVENT + MORE_EVENT
)
PLAIN_ANSWERS = (*SORTS, *TEXTURE_WORDS, "left", "right", "yes", "no")


@dataclass(frozen=True)
class Names:
    """Made-up names as token ids."""

    voices: list[list[int]]  # of each kind by its sound
    looks: list[list[int]]  # of each kind by its look; the same where names are drawn at random
    actions: list[list[int]]  # what each kind does
    places: list[list[int]]


class NamePieces:
    """Makes names from word pieces: one that starts a word, then up to two that go on; never a word of
    `word_list` or of the sample data's answers.
    """

    def __init__(self, pieces: list[str]) -> None:
        """`pieces`: the tokenizer's vocabulary in id order."""
        first, rest = [], []
        for index, piece in enumerate(pieces):
            body = piece.removeprefix("\u2581")
            if not (body.isalpha() and body.isascii() and body.islower()):
                continue
            (first if piece != body else rest).append(index)
        self.first, self.rest, self.pieces = first, rest, pieces
        self.forbidden = set(word_list()) | answer_vocabulary()

    def allowed(self, ids: list[int]) -> bool:
        """Whether the pieces spell no known word."""
        return "".join(self.pieces[i] for i in ids).strip("\u2581") not in self.forbidden

    def draw(self, rng: np.random.Generator) -> list[int]:
        """Ids of a random name of one to three pieces."""
        while True:
            ids = [int(rng.choice(self.first))]
            ids += [int(i) for i in rng.choice(self.rest, int(rng.choice([0, 1, 2], p=[0.3, 0.55, 0.15])))]
            if self.allowed(ids):
                return ids

    def draw_names(self, rng: np.random.Generator, kinds: int, places: int) -> Names:
        """Random names for an episode."""
        named = [self.draw(rng) for _ in range(kinds)]
        return Names(
            named, named, [self.draw(rng) for _ in range(kinds)], [self.draw(rng) for _ in range(places)]
        )

    def spell(self, rng: np.random.Generator, vectors: np.ndarray, codes: int = 48) -> list[list[int]]:
        """A name of two pieces for each row of `vectors` (N, width) that tells where it points: each piece
        stands for the nearest of `codes` rows drawn at random. Alike things get alike names, unseen ones too.
        """
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        parts = []
        for pool in (self.first, self.rest):
            corners = unit[rng.choice(len(unit), min(codes, len(unit)), replace=False)]
            corners = corners + 0.3 * rng.standard_normal(corners.shape) * unit.std()
            chosen = rng.choice(pool, len(corners), replace=False)
            parts.append(chosen[(unit @ corners.T).argmax(1)])
        spare = [int(i) for i in rng.choice(self.rest, 2, replace=False)]
        names = [[int(a), int(b)] for a, b in zip(*parts, strict=True)]
        return [ids if self.allowed(ids) else [*ids, *spare] for ids in names]

    def spell_names(
        self, rng: np.random.Generator, proxies: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> Names:
        """Spelled names from the towers' proxies of voices, looks and places."""
        voices, looks, places = proxies
        actions = [name[:1] for name in self.spell(rng, voices)]
        actions = [ids if self.allowed(ids) else [*ids, self.rest[0]] for ids in actions]
        return Names(self.spell(rng, voices), self.spell(rng, looks), actions, self.spell(rng, places))
