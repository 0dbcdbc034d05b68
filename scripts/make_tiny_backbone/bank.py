"""The bank: views of many unnamed things and places and recordings of many unnamed voices, made once.

Pre-training mixes them into new scenes at every step (`mixer.py`), so a small bank shows an endless world.

Letters: K kinds, V views of each, P places, n samples, T fbank frames, F mel bins, S pixels.
"""

import json
import multiprocessing
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from model.encoders.audio import FRAME_SAMPLES, MEL_BINS, SHIFT_SAMPLES, normalised_fbank
from scripts.tiny_world.backdrop import draw_place
from scripts.tiny_world.kinds import CATEGORIES, Kind, random_kind
from scripts.tiny_world.looks import TEXTURES, draw_look
from scripts.tiny_world.places import GRAINS, LAYOUTS, Place, random_place
from scripts.tiny_world.plans import PLANS
from scripts.tiny_world.voices import FAMILIES, synthesise

KIND, PLACE = 1, 2  # streams of the random generators


@dataclass(frozen=True)
class BankSizes:
    """How much is drawn."""

    kinds: int = 3000  # K
    views: int = 2  # pictures of each kind
    recordings: int = 4  # sounds of each kind, at speeds of 0.92 to 1.08
    places: int = 1200  # P
    place_views: int = 3  # pictures of each place
    sprite_pixels: int = 64
    place_pixels: int = 128
    sound_frames: int = 500  # T, 10 ms each
    seed: int = 0


@dataclass(frozen=True)
class Bank:
    """Memory-mapped arrays and the attributes by which captions describe kinds and places."""

    sizes: BankSizes
    sprites: np.ndarray  # (K, V, S, S, 4) uint8 RGBA, not premultiplied
    sounds: np.ndarray  # (K, V, T, F) float16 log-mel spectra, as the audio tower normalises them
    places: np.ndarray  # (P, place_views, S, S, 3) uint8
    kind_facts: np.ndarray  # (K, 4) int64: category, body plan, texture, voice family
    place_facts: np.ndarray  # (P, 3) int64: layout, grain of the upper and of the lower half


def kind_of(sizes: BankSizes, index: int) -> Kind:
    """The kind with this number; the same on every call."""
    return random_kind(np.random.default_rng([sizes.seed, KIND, index]))


def place_of(sizes: BankSizes, index: int) -> Place:
    """The place with this number; the same on every call."""
    return random_place(np.random.default_rng([sizes.seed, PLACE, index]))


def _draw_kind(job: tuple[BankSizes, int]) -> tuple[np.ndarray, np.ndarray]:
    sizes, index = job
    torch.set_num_threads(1)
    kind = kind_of(sizes, index)
    rng = np.random.default_rng([sizes.seed, KIND, index, 1])
    samples = FRAME_SAMPLES + (sizes.sound_frames - 1) * SHIFT_SAMPLES
    looks = [draw_look(kind.look, rng, sizes.sprite_pixels) for _ in range(sizes.views)]
    speeds = rng.permutation(np.linspace(0.92, 1.08, sizes.recordings))
    waves = np.stack([synthesise(kind.voice, rng, samples, float(speed)) for speed in speeds])
    sounds = normalised_fbank(torch.from_numpy(waves)).half().numpy()
    return (np.stack(looks) * 255 + 0.5).astype(np.uint8), sounds


def _draw_place(job: tuple[BankSizes, int]) -> np.ndarray:
    sizes, index = job
    place = place_of(sizes, index)
    rng = np.random.default_rng([sizes.seed, PLACE, index, 1])
    side = sizes.place_pixels
    views = [
        np.clip(draw_place(place, rng, side, side) * place.light, 0, 1) for _ in range(sizes.place_views)
    ]
    return (np.stack(views) * 255 + 0.5).astype(np.uint8)


def _facts(sizes: BankSizes) -> tuple[np.ndarray, np.ndarray]:
    kinds = [kind_of(sizes, i) for i in range(sizes.kinds)]
    places = [place_of(sizes, i) for i in range(sizes.places)]
    plans = list(PLANS)
    kind_facts = [
        (
            CATEGORIES.index(k.category),
            plans.index(k.look.plan),
            TEXTURES.index(k.look.texture),
            FAMILIES.index(k.voice.family),
        )
        for k in kinds
    ]
    place_facts = [
        (LAYOUTS.index(p.layout), GRAINS.index(p.top.grain), GRAINS.index(p.bottom.grain)) for p in places
    ]
    return np.asarray(kind_facts), np.asarray(place_facts)


def make_bank(folder: Path, sizes: BankSizes, processes: int = 2) -> float:
    """Draw everything into `folder`; what is there from the same sizes is kept. Returns the minutes that it
    took.
    """
    done, start = folder / "sizes.json", time.time()
    if done.is_file():
        made = json.loads(done.read_text())
        minutes = float(made.pop("minutes"))
        if made == asdict(sizes):
            return minutes
    folder.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    side = sizes.sprite_pixels
    shapes = {
        "sprites": ((sizes.kinds, sizes.views, side, side, 4), np.uint8),
        "sounds": ((sizes.kinds, sizes.recordings, sizes.sound_frames, MEL_BINS), np.float16),
        "places": ((sizes.places, sizes.place_views, sizes.place_pixels, sizes.place_pixels, 3), np.uint8),
    }
    arrays = {
        n: open_memmap(folder / f"{n}.npy", mode="w+", dtype=d, shape=s) for n, (s, d) in shapes.items()
    }
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        kinds = pool.imap(_draw_kind, [(sizes, i) for i in range(sizes.kinds)], chunksize=16)
        for index, (looks, waves) in enumerate(kinds):
            arrays["sprites"][index], arrays["sounds"][index] = looks, waves
        places = pool.imap(_draw_place, [(sizes, i) for i in range(sizes.places)], chunksize=16)
        for index, views in enumerate(places):
            arrays["places"][index] = views
    for array in arrays.values():
        array.flush()
    kind_facts, place_facts = _facts(sizes)
    np.save(folder / "kind_facts.npy", kind_facts)
    np.save(folder / "place_facts.npy", place_facts)
    minutes = (time.time() - start) / 60
    done.write_text(json.dumps({**asdict(sizes), "minutes": minutes}))
    return minutes


def open_bank(folder: Path) -> Bank:
    """Open what `make_bank` wrote."""
    made = json.loads((folder / "sizes.json").read_text())
    sizes = BankSizes(**{name: value for name, value in made.items() if name != "minutes"})
    names = ("sprites", "sounds", "places", "kind_facts", "place_facts")
    return Bank(sizes, *(np.load(folder / f"{n}.npy", mmap_mode="r") for n in names))
