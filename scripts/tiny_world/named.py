"""The things and places of the sample data, as plain tables.

Their names and actions are the answers of the four tasks; pre-training must not use them.
"""

from __future__ import annotations

# name, category, what happens, body plan, texture, voice family, colours
THINGS = (
    ("gull", "animal", "gull crying", "bird", "patches", "call", "f0f0f0", "8a93a0", "e8b030"),
    ("parrot", "animal", "parrot screeching", "bird", "plain", "chirp", "2fae3a", "d32f2f", "303030"),
    ("hound", "animal", "hound baying", "quadruped", "patches", "call", "8a5a2b", "f2e6d0", "202020"),
    ("pony", "animal", "pony whinnying", "quadruped", "plain", "growl", "4b2a14", "20140a", "caa27a"),
    ("cricket", "animal", "cricket trilling", "insect", "stripes", "rattle", "6b8e23", "3a4a10", "d0e0a0"),
    ("wasp", "animal", "wasp humming", "insect", "bands", "buzz", "f2c200", "1a1a1a", "c8c8d8"),
    ("toad", "animal", "toad ribbiting", "creature", "spots", "growl", "6f7a3a", "b5a05a", "402010"),
    ("walrus", "animal", "walrus bellowing", "fish", "fur", "growl", "9a6a5a", "6a4238", "f5f0e0"),
    ("viper", "animal", "viper hissing", "chain", "bands", "rush", "c8602a", "40260e", "f0d080"),
    ("kitten", "animal", "kitten mewing", "quadruped", "stripes", "call", "f0a050", "fff2e0", "d07070"),
    ("fiddle", "instrument", "bowing the fiddle", "lute", "fur", "bowed", "a8501c", "2a1608", "e8d0a0"),
    ("banjo", "instrument", "plucking a banjo", "lute", "plain", "pluck", "f4ecd8", "7a4a20", "c0c0c8"),
    ("flute", "instrument", "playing the flute", "pipe", "plain", "blown", "d0d4dc", "9aa0ac", "6a7080"),
    ("tuba", "instrument", "blowing a tuba", "pipe", "fur", "blown", "d8a828", "f0d068", "806010"),
    ("gong", "instrument", "striking a gong", "wheel", "bands", "bell", "b8862c", "7a5010", "e8c060"),
    ("bongo", "instrument", "tapping a bongo", "drum", "stripes", "knock", "c0392b", "f3e3c3", "303030"),
    ("tractor", "vehicle", "tractor chugging", "vehicle", "plain", "engine", "2e7d32", "f2d024", "202020"),
    ("tram", "vehicle", "tram rumbling", "vehicle", "bands", "engine", "c62828", "e8e8e8", "303860"),
    ("ambulance", "vehicle", "ambulance wailing", "vehicle", "plain", "siren", "f5f5f5", "d42020", "1e66c8"),
    ("scooter", "vehicle", "scooter revving", "vehicle", "stripes", "buzz", "20b0b8", "101820", "e8e0d0"),
    ("clock", "object", "clock ticking", "wheel", "spots", "knock", "f0e8d8", "303030", "a02020"),
    ("drill", "object", "drilling a hole", "tool", "bands", "buzz", "f29a1a", "282828", "9098a0"),
    ("blender", "object", "mixing in a blender", "gadget", "plain", "engine", "d84a7a", "f0d0dc", "505058"),
    ("teapot", "object", "teapot whistling", "gadget", "stripes", "siren", "3a5ab8", "f0f4ff", "d8b048"),
    ("axe", "object", "chopping with an axe", "tool", "plain", "knock", "585c64", "886040", "30343a"),
    ("faucet", "object", "faucet gushing", "gadget", "net", "rush", "b8c4c8", "5a8090", "e04040"),
)  # fmt: skip

# A surface is two colours, grain, exponent, stretch, scale; a structure its shape, two colours, count, size.
_SKY = ("6fa3dd", "e8f1fa", "clouds", 1.5, 2.0, 4)
# name, layout, top surface, bottom surface, range of the horizon, structures, light
PLACES = (
    ("woodland", "open",
     ("203a20", "88a070", "noise", 1.0, 0.5, 4), ("2a2412", "6a5a30", "noise", 0.8, 1.5, 4),
     (0.6, 0.8), (("trunks", "3a2614", "6a4a2a", 9, 1.0), ("trees", "1c3a1c", "3c6a30", 5, 1.2)), 0.9),
    ("beach", "open",
     _SKY, ("c8a868", "f2e0b0", "noise", 0.8, 2.0, 4),
     (0.35, 0.5), (("rocks", "8a7a5a", "b8a880", 4, 0.6),), 0.95),
    ("lagoon", "open",
     ("8ab8e0", "f4f8fc", "clouds", 1.6, 3.0, 4), ("0c3a6a", "4a90c0", "waves", 1.1, 5.0, 12),
     (0.25, 0.45), (), 0.95),
    ("reef", "full",
     ("04305a", "1a90b0", "noise", 1.5, 1.0, 4), ("104a50", "40a090", "cells", 1.0, 1.0, 6),
     (0.6, 0.8), (("bubbles", "b0e8f0", "e0ffff", 9, 0.6), ("reeds", "e06a70", "f0a040", 7, 0.9)), 0.95),
    ("snowfield", "open",
     ("8898b0", "d0dae4", "clouds", 1.6, 2.0, 4), ("b8c6d8", "f2f6fc", "noise", 1.3, 2.0, 4),
     (0.45, 0.65), (("mountains", "6a7688", "e4eaf4", 3, 1.0),), 0.95),
    ("dunes", "open",
     ("d8b080", "f4dcb4", "plain", 1.7, 3.0, 4), ("a8602a", "e8a050", "waves", 1.2, 6.0, 7),
     (0.35, 0.6), (("mountains", "c07a38", "e09a50", 3, 0.5),), 0.95),
    ("downtown", "open",
     ("8a9098", "d0d6dc", "clouds", 1.5, 2.0, 4), ("303236", "606468", "planks", 0.8, 2.0, 5),
     (0.6, 0.78), (("buildings", "50586a", "e8d890", 7, 1.2),), 0.95),
    ("bazaar", "open",
     ("08081a", "1c1c3a", "plain", 1.3, 1.0, 4), ("1a1410", "4a3220", "tiles", 0.9, 1.0, 8),
     (0.6, 0.78), (("lights", "ffc040", "ff5030", 14, 1.2), ("trunks", "402838", "604050", 4, 0.7)), 1.0),
    ("library", "room",
     ("c8b898", "e8dcc4", "plain", 1.3, 1.0, 4), ("5a3a20", "8a6038", "planks", 0.9, 3.0, 7),
     (0.62, 0.78), (("shelves", "5a3418", "b03a30", 6, 1.2),), 0.95),
    ("kitchen", "room",
     ("b8c4c0", "d8e0dc", "tiles", 1.0, 1.0, 9), ("80888c", "a8b0b4", "tiles", 1.0, 1.0, 7),
     (0.62, 0.78), (("windows", "88b8e0", "f0f4f8", 2, 1.0), ("pillars", "4a8a80", "70b0a0", 3, 0.8)), 0.95),
    ("stage", "room",
     ("4a0812", "b01c2c", "grass", 1.2, 0.15, 9), ("3a2210", "8a5a30", "planks", 0.9, 4.0, 9),
     (0.65, 0.8), (("rays", "fff0c0", "ffd070", 3, 1.0),), 0.95),
    ("flowerbed", "full",
     ("2a6a24", "58a03a", "grass", 0.8, 0.6, 10), ("3a7a2a", "e02858", "dots", 0.8, 1.0, 11),
     (0.3, 0.5), (), 0.95),
)  # fmt: skip
