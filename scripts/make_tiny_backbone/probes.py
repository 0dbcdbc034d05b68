"""Linear probes: do the frozen features tell unseen things, places and voices apart?

Kinds and places that pre-training never saw are rendered as the sample data are; a ridge classifier reads the
mean and the maximum over positions of the tower's output. The same probe on towers with random weights shows
what the architecture gives for nothing.

Letters: N clips, W feature width, C classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPVisionModel

from model.encoders.audio import AudioTower
from model.encoders.beats import BEATs, BEATsConfig
from model.encoders.features import MediaEncoder
from scripts.tiny_world.kinds import random_kind
from scripts.tiny_world.places import random_place
from scripts.tiny_world.render import render
from scripts.tiny_world.scene import compose_scene


@dataclass(frozen=True)
class ProbeSizes:
    """Size of the probe set."""

    classes: int = 30  # kinds, and places
    train: int = 12  # clips per class to fit on
    test: int = 8  # clips per class to test on
    seed: int = 7


@dataclass(frozen=True)
class ProbeClips:
    """Rendered clips with their classes."""

    frames: list[np.ndarray]
    waves: list[Tensor]
    kinds: Tensor  # (N,)
    places: Tensor  # (N,)
    test: Tensor  # (N,) bool


def render_probe_clips(sizes: ProbeSizes) -> ProbeClips:
    """Each kind in `train + test` clips, places spread evenly and independently."""
    rng = np.random.default_rng([sizes.seed, 99])
    kinds = [random_kind(rng) for _ in range(sizes.classes)]
    places = [random_place(rng) for _ in range(sizes.classes)]
    per_class = sizes.train + sizes.test
    kind_of = np.repeat(np.arange(sizes.classes), per_class)
    place_of = rng.permutation(kind_of)
    clips = [
        render(compose_scene(rng, places[p], kinds[k]), rng, size=96, frames=2, seconds=3.0)
        for k, p in zip(kind_of, place_of, strict=True)
    ]
    test = np.tile(np.arange(per_class) >= sizes.train, sizes.classes)
    waves = [torch.from_numpy(wave) for _, wave in clips]
    return ProbeClips(
        [f for f, _ in clips],
        waves,
        torch.from_numpy(kind_of),
        torch.from_numpy(place_of),
        torch.from_numpy(test),
    )


def ridge_accuracy(features_NW: Tensor, labels_N: Tensor, test_N: Tensor, strength: float = 3.0) -> float:
    """Accuracy (percent) on test rows of `argmax X (X'X + s I)^-1 X'Y` fitted on the others, features
    standardised.
    """
    train = ~test_N
    x = features_NW.double()
    x = (x - x[train].mean(0)) / (x[train].std(0) + 1e-6)
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    y = torch.nn.functional.one_hot(labels_N).double()
    gram = x[train].T @ x[train] + strength * x.shape[1] ** 0.5 * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, x[train].T @ y[train])
    right = (x[test_N] @ weight).argmax(1) == labels_N[test_N]
    return 100 * right.double().mean().item()


@torch.no_grad()
def probe(encoder: MediaEncoder, clips: ProbeClips) -> dict[str, float]:
    """Percent right on unseen clips: thing and place from video features, voice from audio features."""
    from PIL import Image

    video, audio = [], []
    for frames, wave in zip(clips.frames, clips.waves, strict=True):
        patches = encoder.vision(encoder.preprocess_frames([Image.fromarray(f) for f in frames])).flatten(
            0, 1
        )
        sound = encoder.audio(encoder.audio.prepare([wave])).flatten(0, 1)
        video.append(torch.cat([patches.mean(0), patches.amax(0)]))
        audio.append(torch.cat([sound.mean(0), sound.amax(0)]))
    seen, heard = torch.stack(video), torch.stack(audio)
    return {
        "place, from video features": ridge_accuracy(seen, clips.places, clips.test),
        "object, from video features": ridge_accuracy(seen, clips.kinds, clips.test),
        "sound, from audio features": ridge_accuracy(heard, clips.kinds, clips.test),
    }


def randomise_towers(encoder: MediaEncoder, seed: int) -> None:
    """Give both towers random weights, in place."""
    torch.manual_seed(seed)
    fresh = CLIPVisionModel(encoder.vision.model.config).state_dict()
    used = encoder.vision.model.state_dict()  # the loader leaves the unused last layer out
    encoder.vision.model.load_state_dict({name: fresh[name] for name in used})
    config: BEATsConfig = encoder.audio.beats.config
    audio: AudioTower = encoder.audio
    audio.beats.load_state_dict(BEATs(config).state_dict())
