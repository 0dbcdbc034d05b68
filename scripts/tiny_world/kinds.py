"""Kinds: a thing that has a look, a voice and, if the sample data show it, a name."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from .looks import Look, random_look, rgb
from .named import THINGS
from .voices import Voice, random_voice

CATEGORIES = ("animal", "instrument", "vehicle", "object")
_PLANS = {
    "animal": ("quadruped", "bird", "fish", "insect", "chain", "creature", "cluster"),
    "instrument": ("lute", "pipe", "drum", "wheel", "cluster"),
    "vehicle": ("vehicle", "vehicle", "vehicle", "cluster"),
    "object": ("tool", "wheel", "gadget", "cluster"),
}
_FAMILIES = {
    "animal": ("call", "chirp", "growl", "buzz", "rattle"),
    "instrument": ("bowed", "blown", "pluck", "bell", "knock"),
    "vehicle": ("engine", "siren", "buzz"),
    "object": ("knock", "rush", "rattle", "bell", "engine"),
}
_VOICE_DRAW = 7  # of eight draws the one whose voices are loudest above noise and least alike


@dataclass(frozen=True)
class Kind:
    """One kind of thing."""

    name: str  # answer to Come and Which; "" for the unnamed kinds of pre-training
    category: str  # one of CATEGORIES
    happening: str  # answer to Happening; "" for unnamed kinds
    look: Look
    voice: Voice


def random_kind(rng: np.random.Generator) -> Kind:
    """An unnamed kind from the unbounded family."""
    category = str(rng.choice(CATEGORIES, p=[0.5, 0.2, 0.1, 0.2]))
    plan = str(rng.choice(_PLANS[category]))
    family = str(rng.choice(_FAMILIES[category]))
    return Kind("", category, "", random_look(rng, plan), random_voice(rng, family))


def named_kinds() -> tuple[Kind, ...]:
    """The kinds that the sample data show, in a fixed order; the same on every call."""
    kinds = []
    for name, category, happening, plan, texture, family, *colours in THINGS:
        seed = zlib.crc32(name.encode())
        look = random_look(np.random.default_rng([seed, 0]), plan, tuple(rgb(c) for c in colours))
        voice = random_voice(np.random.default_rng([seed, _VOICE_DRAW]), family)
        kinds.append(Kind(name, category, happening, replace(look, texture=texture), voice))
    return tuple(kinds)
