"""Media of a sample as frames and waveforms.

Frames: a video given as frames is used as given when it has at most `num_frames`, else thinned; a video file
gives `num_frames` frames. Both are taken at the centres of equal segments (decoding.uniform_indices), which
is where the frames of frame-wise published sets lie. An image is a video of one frame.

Waveforms: mean of the channels, resampled to 16 kHz with soxr's HQ filter, values above full scale kept; an
audio whose path is a video file is the first sound stream of that file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.decoding import (
    MediaError,
    NoSoundError,
    has_sound,
    read_picture,
    read_sound,
    read_video_frames,
    uniform_indices,
)
from data.samples import Media, is_picture

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "DECODING",
    "SAMPLE_RATE",
    "MediaError",
    "NoSoundError",
    "frame_paths",
    "has_sound",
    "load_frames",
    "load_waveform",
]

SAMPLE_RATE = 16_000  # Hz
DECODING = 1  # version of the rules of this file and of decoding.py; a part of the feature store's keys


def frame_paths(media: Media, num_frames: int) -> tuple[Path, ...]:
    """Files that the frames of a video or image are read from: the chosen pictures, or the video file."""
    return tuple(media.paths[i] for i in uniform_indices(len(media.paths), num_frames))


def load_frames(media: Media, num_frames: int = 8) -> list[Image]:
    """RGB frames of a video or an image, at most `num_frames`. Raises MediaError."""
    assert media.kind in ("video", "image"), f"{media.kind} has no frames"
    if media.kind == "image" or is_picture(media.paths[0]):
        return [read_picture(path) for path in frame_paths(media, num_frames)]
    return read_video_frames(media.paths[0], num_frames)


def load_waveform(media: Media) -> NDArray[np.float32]:
    """Sound of an audio, (n,) float32 at 16 kHz, n = ceil(samples * 16000 / rate). Raises MediaError."""
    assert media.kind == "audio", f"{media.kind} has no waveform"
    waveform, rate = read_sound(media.paths[0])  # (samples, channels)
    mono = waveform.mean(axis=1)
    if rate == SAMPLE_RATE:
        return mono
    import soxr

    length = -(-len(mono) * SAMPLE_RATE // rate)
    resampled = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")[:length]
    return np.pad(resampled, (0, length - len(resampled))).astype(np.float32, copy=False)
