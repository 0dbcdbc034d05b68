"""Frames and sound of official videos, in the places that the sample files of a benchmark name.

A clip's frames are the centres of equal segments (decoding.uniform_indices), as JPEG; its sound is a 16 kHz
mono WAV of 16 bits. A video without sound gets a WAV without samples: with `--missing_media drop` its
questions are asked without sound. Files are written atomically and a file that exists is finished, so that
extraction can be stopped anywhere.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.benchmark import SPLITS, Benchmark
from data.decoding import MediaError, NoSoundError, read_video_frames
from data.files import write_bytes_atomic
from data.media import SAMPLE_RATE, load_waveform
from data.parallel import run_forked
from data.samples import Media, is_video_file, read_samples

log = logging.getLogger(__name__)

JPEG_QUALITY = 90
SHARE = 64  # clips that a process takes at a time

# Names of the same clip: AVQA's NAME_000030 (start in the source), AVQACL's NAME_trimmed, and the plain NAME.
_ADDITION = re.compile(r"(?:_\d{6})?(?:_trimmed)?")
_SOURCE_NAME = 11  # characters of a source video's name


@dataclass(frozen=True)
class Clip:
    """The files to be made of one video."""

    name: str  # of its folder
    frames: tuple[Path, ...]
    sound: Path | None  # None where no question asks for it

    @property
    def missing(self) -> bool:
        """Whether a file is still to be made."""
        return not all(path.is_file() for path in (*self.frames, *([self.sound] if self.sound else [])))


@dataclass(frozen=True)
class Failure:
    """A clip that could not be made."""

    clip: str
    reason: str


def clips_of(benchmark: Benchmark) -> list[Clip]:
    """The clips that a benchmark's sample files name as frames in a folder of their own, by name.

    Raises:
        ValueError: a sample's video is no list of frames, or two samples want different files of a clip.
        InputError: an unreadable sample file.
    """
    clips: dict[Path, Clip] = {}
    for path in [path for split in SPLITS for path in benchmark.files(split)]:
        for sample in read_samples(
            path, media_root=benchmark.media_root, media_prefix=benchmark.media_prefix
        ):
            frames = next((media.paths for media in sample.media if media.kind == "video"), ())
            if not frames or is_video_file(frames[0]):
                raise ValueError(
                    f"{path}, index {sample.index}, id {sample.id!r}: names no frames; a benchmark made with "
                    "--media videos needs no extraction"
                )
            sound = next((media.paths[0] for media in sample.media if media.kind == "audio"), None)
            clip = Clip(frames[0].parent.name, frames, sound)
            if clips.setdefault(frames[0].parent, clip) != clip:
                raise ValueError(
                    f"{path}, index {sample.index}, id {sample.id!r}: wants other files of clip {clip.name} "
                    "than an earlier sample; make the benchmark anew"
                )
    return sorted(clips.values(), key=lambda clip: clip.name)


def plain_name(name: str) -> str:
    """A clip's name without what AVQA and AVQACL append to the name of the source video."""
    end = name[_SOURCE_NAME:]
    return name[:_SOURCE_NAME] if _ADDITION.fullmatch(end) else name


class VideoFolder:
    """The video files below a folder, found by the names of clips."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; give the one that holds the videos")
        self.folder = folder
        self._exact: dict[str, list[Path]] = {}
        self._plain: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            if is_video_file(path) and not path.name.startswith("."):
                self._exact.setdefault(path.stem, []).append(path)
                self._plain.setdefault(plain_name(path.stem), []).append(path)

    def find(self, clip: str) -> Path:
        """The clip's video: of exactly its name, else of the same source video. Raises ValueError."""
        found = self._exact.get(clip) or self._plain.get(plain_name(clip), [])
        if len(found) != 1:
            got = " and ".join(map(str, found)) or "no video"
            raise ValueError(f"got {got} below {self.folder}, expected one file {clip}.mp4 or alike")
        return found[0]


def extract(clips: Sequence[Clip], videos: VideoFolder, jobs: int) -> list[Failure]:
    """Make all missing files of the clips, on `jobs` processes; return the clips that failed."""
    todo = [clip for clip in clips if clip.missing]
    log.info("%d of %d clips are there; %d to extract", len(clips) - len(todo), len(clips), len(todo))
    failures: list[Failure] = []
    step = SHARE * jobs
    for start in range(0, len(todo), step):
        part = todo[start : start + step]
        shares = [partial(_extract_share, part[job::jobs], videos) for job in range(min(jobs, len(part)))]
        failures += [failure for share in run_forked(shares, jobs) for failure in share]
        log.info("%d of %d clips, %d failed", start + len(part), len(todo), len(failures))
    return sorted(failures, key=lambda failure: failure.clip)


def _extract_share(clips: Iterable[Clip], videos: VideoFolder) -> list[Failure]:
    failures = []
    for clip in clips:
        try:
            extract_clip(clip, videos.find(clip.name))
        except ValueError as error:  # a MediaError too; a full disk ends the run
            failures.append(Failure(clip.name, str(error)))
    return failures


def extract_clip(clip: Clip, video: Path) -> None:
    """Make the missing files of one clip.

    Raises:
        MediaError: the video cannot be decoded, or has fewer frames than are wanted.
    """
    if clip.sound is not None and not clip.sound.is_file():
        try:
            sound = load_waveform(Media("audio", (video,), True))
        except NoSoundError:
            sound = np.zeros(0, np.float32)
        write_bytes_atomic(clip.sound, wav_bytes(sound))
    if all(path.is_file() for path in clip.frames):
        return
    frames = read_video_frames(video, len(clip.frames))
    if len(frames) < len(clip.frames):
        raise MediaError(f"{video}: {len(frames)} frames, expected at least {len(clip.frames)}")
    for path, frame in zip(clip.frames, frames, strict=True):
        encoded = io.BytesIO()
        frame.save(encoded, "JPEG", quality=JPEG_QUALITY)
        write_bytes_atomic(path, encoded.getvalue())


def wav_bytes(sound: NDArray[np.float32]) -> bytes:
    """A mono WAV of 16 bits; values above full scale are cut."""
    import soundfile

    encoded = io.BytesIO()
    soundfile.write(encoded, sound, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return encoded.getvalue()
