"""Media of a sample as frames and waveforms, and a check of all media before long work starts.

Frames: a video given as frames is used as given when it has at most `num_frames`, else thinned; a video file
gives `num_frames` frames. Both are taken at the centres of equal segments (decoding.uniform_indices), which
is where the frames of frame-wise published sets lie. An image is a video of one frame.

Waveforms: mean of the channels, resampled to 16 kHz with soxr's HQ filter, values above full scale kept; an
audio whose path is a video file is the first sound stream of that file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from data.media_index import MediaIndex
from data.problems import InputError, Problem
from data.samples import Media, Sample, is_picture

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "DECODING",
    "SAMPLE_RATE",
    "MediaError",
    "NoSoundError",
    "check_media",
    "frame_paths",
    "has_sound",
    "load_frames",
    "load_waveform",
    "require_media",
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


def check_media(
    samples: Sequence[Sample],
    *,
    index: MediaIndex | None = None,
    num_frames: int = 8,
    workers: int = 2,
    progress: bool = False,
) -> list[Problem]:
    """Decode every distinct media file once and return what is wrong: one problem per file.

    Args:
        samples: of any number of sample files; a problem names the first sample that uses the file.
        index: remembers files that were found good, so that they are not decoded again while unchanged.
        num_frames: as for load_frames; pictures that thinning leaves out are not read.
        workers: decoding threads.
        progress: show a progress bar.
    """
    users: dict[tuple[str, Path], list[Sample]] = {}
    for sample in samples:
        for media in sample.media:
            paths = media.paths if media.kind == "audio" else frame_paths(media, num_frames)
            for path in paths:
                users.setdefault((_decoder(media.kind, path), path), []).append(sample)
    index = index or MediaIndex(None)
    todo = [job for job in users if not index.is_checked(job[1], job[0])]
    problems: list[Problem] = []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        results: Iterable[str | None] = pool.map(_fault, todo)
        if progress and todo:
            from tqdm import tqdm

            results = tqdm(results, total=len(todo), desc="checking media", unit="file")
        for job, fault in zip(todo, results, strict=True):
            if fault is None:
                index.mark_checked(job[1], job[0])
                continue
            first, others = users[job][0], len({(user.source, user.index) for user in users[job]}) - 1
            more = f" (also used by {others} more samples)" if others else ""
            problems.append(Problem(first.source, fault + more, first.index, first.id))
    return problems


def require_media(
    samples: Sequence[Sample],
    *,
    index: MediaIndex | None = None,
    num_frames: int = 8,
    workers: int = 2,
    progress: bool = False,
) -> None:
    """Raise InputError with everything that check_media finds."""
    problems = check_media(samples, index=index, num_frames=num_frames, workers=workers, progress=progress)
    if problems:
        raise InputError(problems)


def _decoder(kind: str, path: Path) -> str:
    if kind == "audio":
        return "sound"
    return "picture" if kind == "image" or is_picture(path) else "frames"


def _fault(job: tuple[str, Path]) -> str | None:
    """What is wrong with one file, None if nothing."""
    decoder, path = job
    try:
        if decoder == "sound":
            read_sound(path)
        elif decoder == "picture":
            read_picture(path)
        else:
            read_video_frames(path, 1)
    except NoSoundError as error:
        return f'{error}; or leave the sound out with missing_media "drop"'
    except MediaError as error:
        return str(error)
    return None
