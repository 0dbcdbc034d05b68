"""Questions in other words, made by rule, for anchors: other words and other ways of asking for the same.

The words are those of questions about sound and pictures in general. Grammar suffers at times, which the
encoders of questions forgive. Everything follows from text and seed alone.
"""

from __future__ import annotations

import random
import re

WORDS: dict[str, tuple[str, ...]] = {
    "video": ("clip", "footage", "recording", "film", "scene"),
    "take place": ("happen", "occur", "go on", "play"),
    "sounds at the same time as": ("is heard together with", "accompanies", "plays along with"),
    "from beginning to end": ("the whole time", "throughout", "at all"),
    "comes in": ("joins", "enters", "starts to play"),
    "main": ("chief", "primary", "principal", "dominant", "loudest"),
    "source of sound": ("thing making the noise", "origin of the noise"),
    "sound source": ("thing making the noise", "origin of the noise"),
    "source": ("origin", "cause", "producer"),
    "sources": ("origins", "causes", "producers"),
    "makes a sound": ("is heard", "calls out", "makes a noise"),
    "makes the sound": ("is heard", "plays", "makes a noise"),
    "makes sounds": ("is heard", "plays", "makes a noise"),
    "sound": ("noise", "audio", "tone"),
    "sounds": ("is heard", "makes noise", "is audible"),
    "sounding": ("audible", "playing", "heard"),
    "animal": ("creature", "beast", "species", "kind of animal"),
    "animals": ("creatures", "beasts", "kinds of animals"),
    "people": ("persons", "folks", "men and women", "humans"),
    "person": ("man", "woman", "somebody"),
    "child": ("kid", "youngster", "little one"),
    "doing": ("up to", "busy with", "engaged in"),
    "happened": ("occurred", "took place", "went on"),
    "appears": ("shows up", "is visible", "can be seen"),
    "appear": ("show up", "are visible", "can be seen"),
    "appeared": ("showed up", "were visible", "could be seen"),
    "shown": ("visible", "displayed", "to be seen"),
    "car": ("vehicle", "automobile"),
    "driving": ("moving", "travelling", "going along"),
    "holding": ("carrying", "gripping"),
    "color": ("colour", "hue"),
    "weather": ("weather conditions", "kind of weather"),
    "louder": ("noisier", "higher in volume", "more audible"),
    "longer": ("for more time", "for a longer time"),
    "rhythmic": ("marked in its rhythm", "rhythmical"),
    "types": ("kinds", "sorts"),
    "kind": ("type", "sort"),
    "musical instrument": ("instrument",),
    "musical instruments": ("instruments",),
    "performance": ("concert", "show", "recital"),
    "voiceover": ("narrator", "narration", "commentary", "voice off camera"),
    "always": ("constantly", "all the time", "without a pause"),
    "entire": ("whole", "complete"),
    "first": ("before the others", "earliest", "at the start"),
    "last": ("at the end", "final"),
    "before": ("prior to", "ahead of", "earlier than"),
    "after": ("following", "later than"),
    "left": ("left hand side", "far left"),
    "right": ("right hand side", "far right"),
    "how many": ("what number of", "the number of", "count the"),
    "where": ("in what place", "whereabouts", "at which location", "in which spot"),
}
"""A word or phrase -> others that ask for the same."""
LEADS = ("can you tell me", "tell me", "I would like to know", "please say", "could you say", "do you know")
COMMANDS = ("name", "identify", "give", "state", "point out", "say which is", "which is", "determine")
PLACES = ("", "", " here", " on screen", " in the {video}", " in this {video}", " of the {video}")
_PLACE = re.compile(r" (in|of|throughout) (the|this)( entire)? video\b")
_ASKED = re.compile(r"(what|which) (is|are) (the .*)")
_CHANGED = 0.6
"""Chance that a word that has others is replaced."""


def reworded(text: str, number: int, seed: int = 0) -> list[str]:
    """At most `number` rewordings, all distinct and none the question itself."""
    found = (_rewording(text, random.Random(f"{seed} {index} {text}")) for index in range(number))
    return [other for other in dict.fromkeys(found) if other != text]


def _rewording(text: str, rng: random.Random) -> str:
    asked = text.strip().rstrip("?.! ").lower().replace("what's", "what is")
    if rng.random() < _CHANGED:
        asked = _PLACE.sub(lambda _: rng.choice(PLACES).format(video=rng.choice(WORDS["video"])), asked)
    for word, others in WORDS.items():
        if rng.random() < _CHANGED:
            asked = re.sub(rf"\b{word}\b", rng.choice(others), asked)
    way, command = rng.random(), _ASKED.fullmatch(asked)
    if way < 0.4 and command:
        asked = f"{rng.choice(COMMANDS)} {command[3]}"
    elif way < 0.6:
        asked = f"{rng.choice(LEADS)} {asked}"
    elif way < 0.75 and asked.startswith("what "):
        asked = f"which {asked[5:]}"
    asked = " ".join(asked.split())
    return f"{asked[:1].upper()}{asked[1:]}{'?' if way > 0.3 else '.'}"
