"""Kinds: a thing that has a look, a voice and, if the sample data show it, a name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .looks import Look, random_look
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
    for number, (name, category, happening, plan, family, *colours) in enumerate(_NAMED):
        rng = np.random.default_rng([2024, number])
        palette = tuple(tuple(int(c[i : i + 2], 16) / 255 for i in (0, 2, 4)) for c in colours)
        look = random_look(rng, plan, palette)  # type: ignore[arg-type]
        kinds.append(Kind(name, category, happening, look, random_voice(rng, family)))
    return tuple(kinds)


# name, category, what happens, body plan, voice family, colours
_NAMED = (
    ("gull", "animal", "gull crying", "bird", "call", "f0f0f0", "8a93a0", "e8b030"),
    ("parrot", "animal", "parrot screeching", "bird", "chirp", "2fae3a", "d32f2f", "303030"),
    ("hound", "animal", "hound baying", "quadruped", "call", "8a5a2b", "f2e6d0", "202020"),
    ("pony", "animal", "pony whinnying", "quadruped", "growl", "5b3318", "20140a", "caa27a"),
    ("ox", "animal", "ox lowing", "quadruped", "call", "d9d2c5", "2a2a2a", "c99060"),
    ("cricket", "animal", "cricket trilling", "insect", "rattle", "6b8e23", "3a4a10", "d0e0a0"),
    ("wasp", "animal", "wasp humming", "insect", "buzz", "f2c200", "1a1a1a", "c8c8d8"),
    ("toad", "animal", "toad ribbiting", "creature", "growl", "7a6a3a", "b5a05a", "402010"),
    ("walrus", "animal", "walrus bellowing", "fish", "growl", "9a6a5a", "6a4238", "f5f0e0"),
    ("viper", "animal", "viper hissing", "chain", "rush", "c8602a", "40260e", "f0d080"),
    ("kitten", "animal", "kitten mewing", "quadruped", "call", "f0a050", "fff2e0", "d07070"),
    ("wren", "animal", "wren warbling", "bird", "chirp", "a0704a", "5a3a20", "e0c090"),
    ("fiddle", "instrument", "playing the fiddle", "lute", "bowed", "a8501c", "2a1608", "e8d0a0"),
    ("banjo", "instrument", "plucking a banjo", "lute", "pluck", "f4ecd8", "7a4a20", "c0c0c8"),
    ("flute", "instrument", "playing the flute", "pipe", "blown", "d0d4dc", "9aa0ac", "6a7080"),
    ("tuba", "instrument", "blowing a tuba", "pipe", "blown", "d8a828", "f0d068", "806010"),
    ("gong", "instrument", "striking a gong", "wheel", "bell", "b8862c", "7a5010", "e8c060"),
    ("bongo", "instrument", "tapping a bongo", "drum", "knock", "c0392b", "f3e3c3", "303030"),
    ("harp", "instrument", "strumming a harp", "tool", "pluck", "e0b040", "8a5a1a", "fff0c0"),
    ("chimes", "instrument", "ringing chimes", "gadget", "bell", "90c0d8", "406880", "e8f4fa"),
    ("tractor", "vehicle", "tractor chugging", "vehicle", "engine", "2e7d32", "f2d024", "202020"),
    ("tram", "vehicle", "tram rumbling", "vehicle", "engine", "c62828", "e8e8e8", "303860"),
    ("ambulance", "vehicle", "ambulance wailing", "vehicle", "siren", "f5f5f5", "1e66c8", "d42020"),
    ("scooter", "vehicle", "scooter revving", "vehicle", "buzz", "20b0b8", "101820", "e8e0d0"),
    ("clock", "object", "clock ticking", "wheel", "knock", "f0e8d8", "303030", "a02020"),
    ("drill", "object", "drilling a hole", "tool", "buzz", "f29a1a", "282828", "9098a0"),
    ("blender", "object", "mixing in a blender", "gadget", "engine", "d84a7a", "f0d0dc", "505058"),
    ("teapot", "object", "teapot whistling", "gadget", "siren", "3a5ab8", "f0f4ff", "d8b048"),
    ("anvil", "object", "striking an anvil", "tool", "bell", "585c64", "30343a", "886040"),
    ("faucet", "object", "water running", "gadget", "rush", "b8c4c8", "5a8090", "e04040"),
)  # fmt: skip
