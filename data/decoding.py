"""Decoding of single files: pictures (PIL), video files and their sound (PyAV), sound files (soundfile,
PyAV).

Every function raises MediaError, naming the file, where it is missing, unreadable, truncated or empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

SOUND_FILE_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au")
WHOLE = 0.9  # a stream with less than this share of what its header announces (and a little) is truncated
ONE_PICTURE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


class MediaError(ValueError):
    """A media file that cannot be used; the message names it and says why."""


class NoSoundError(MediaError):
    """A readable file that holds no sound."""


@contextmanager
def _naming(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turn a decoder's errors (OSError and those given) into a MediaError that names the file."""
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise MediaError(f"{path}: {what}; check the path and the media root")
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        if not isinstance(error, (OSError, EOFError, *errors)):
            raise
        raise MediaError(f"{path}: cannot be decoded ({error}); is it complete and undamaged?") from error


def read_picture(path: Path) -> Image:
    """An RGB picture, turned upright by its EXIF orientation."""
    from PIL import Image, ImageOps

    with _naming(path, Image.DecompressionBombError, SyntaxError, ValueError), Image.open(path) as picture:
        if picture.mode not in ONE_PICTURE_MODES:
            raise MediaError(f"{path}: picture mode is {picture.mode}; save it with 8 bits per channel")
        picture.load()
        return ImageOps.exif_transpose(picture).convert("RGB")


def uniform_indices(total: int, count: int) -> list[int]:
    """Centres floor((i + 1/2) total / count) of `count` equal segments; all items if total <= count."""
    if total <= count:
        return list(range(total))
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def read_video_frames(path: Path, count: int) -> list[Image]:
    """At most `count` RGB frames of the first video stream, sampled by `uniform_indices`, upright."""
    import av

    with _naming(path, av.FFmpegError):
        total = _count_frames(path)
        frames, decoded = _pick_frames(path, uniform_indices(total, count))
        if decoded < WHOLE * total - 2:
            raise MediaError(f"{path}: truncated, {decoded} of {total} frames left; replace the file")
        if decoded != total:  # some packets hold no shown frame
            frames, _ = _pick_frames(path, uniform_indices(decoded, count))
    return frames


def _count_frames(path: Path) -> int:
    """Number of frames that the file announces or holds packets of, whichever is larger."""
    import av

    with av.open(str(path)) as container:
        if not container.streams.video:
            raise MediaError(f"{path}: holds no video stream; give a video file or a list of frames")
        stream = container.streams.video[0]
        packets = sum(1 for packet in container.demux(stream) if packet.size)
        total = max(int(stream.frames), packets)
    if total == 0:
        raise MediaError(f"{path}: holds no frames; replace the file")
    return total


def _pick_frames(path: Path, wanted: Sequence[int]) -> tuple[list[Image], int]:
    """The frames at the wanted positions (ascending) and the number of all frames."""
    import av

    frames: list[Image] = []
    number = 0
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            if len(frames) < len(wanted) and wanted[len(frames)] == number:
                if frame.is_corrupt:
                    raise MediaError(f"{path}: frame {number} is damaged; replace the file")
                frames.append(_upright(frame))
            number += 1
    if number == 0:
        raise MediaError(f"{path}: holds no frames that can be decoded; replace the file")
    return frames, number


def _upright(frame: Any) -> Image:
    picture: Image = frame.to_image()
    turn = int(getattr(frame, "rotation", 0))  # degrees, counterclockwise
    return picture.rotate(turn, expand=True) if turn else picture


def read_sound(path: Path) -> tuple[NDArray[np.float32], int]:
    """Sound of an audio or video file: (samples, channels) float32 as decoded, and its rate in Hz.

    Raises:
        NoSoundError: the file can be read but has no sound.
    """
    if path.suffix.lower() in SOUND_FILE_SUFFIXES:
        waveform, rate = _read_sound_file(path)
    else:
        waveform, rate = _read_sound_stream(path)
    if len(waveform) == 0:
        raise NoSoundError(f"{path}: holds no sound, 0 samples; replace the file")
    if not np.isfinite(waveform).all():
        raise MediaError(f"{path}: holds samples that are not finite; replace the file")
    return waveform, rate


def has_sound(path: Path) -> bool:
    """Whether a file holds a sound stream with a sample in it. Raises MediaError where it cannot be read."""
    import av

    with _naming(path, av.FFmpegError), av.open(str(path)) as container:
        if not container.streams.audio:
            return False
        return any(frame.samples > 0 for frame in container.decode(audio=0))


def seconds(path: Path) -> float | None:
    """Length of a sound or video file as its header says; None where it does not say. Raises MediaError."""
    import av

    with _naming(path, av.FFmpegError), av.open(str(path)) as container:
        return None if container.duration is None else container.duration / av.time_base


def _read_sound_file(path: Path) -> tuple[NDArray[np.float32], int]:
    import soundfile

    with _naming(path, RuntimeError):  # soundfile's errors are RuntimeErrors
        _check_announced_size(path)
        with soundfile.SoundFile(path) as file:
            announced = file.frames
            waveform = file.read(dtype="float32", always_2d=True)
            rate = file.samplerate
        if path.suffix.lower() == ".flac" and len(waveform) < announced:
            raise MediaError(f"{path}: truncated, {len(waveform)} of {announced} samples; replace the file")
    return waveform, rate


def _check_announced_size(path: Path) -> None:
    """Raise for a WAV shorter than its header says, and for an Ogg file without an end-of-stream page.

    libsndfile reads both without a complaint. Sizes of 0 and 2^32 - 1 stand for streams of unknown length.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if head[:4] == b"RIFF":
            announced = int.from_bytes(head[4:8], "little") + 8
            if 8 < announced < 2**32 - 1 and size < announced:
                raise MediaError(f"{path}: truncated, {size} of {announced} bytes; replace the file")
        elif head[:4] == b"OggS":
            file.seek(max(0, size - 2**16 - 2**10))  # a page is shorter than this
            tail = file.read()
            page = tail.rfind(b"OggS")
            if page < 0 or page + 5 >= len(tail) or not tail[page + 5] & 4:
                raise MediaError(f"{path}: truncated, the end of the stream is missing; replace the file")


def _read_sound_stream(path: Path) -> tuple[NDArray[np.float32], int]:
    import av

    with _naming(path, av.FFmpegError), av.open(str(path)) as container:
        if not container.streams.audio:
            raise NoSoundError(f"{path}: holds no sound stream; remove the <audio> tag or give 'voice'")
        stream = container.streams.audio[0]
        rate = int(stream.rate)
        resampler = av.AudioResampler(format="fltp")  # keeps rate and channels
        parts: list[NDArray[np.float32]] = []  # each (channels, samples)
        for frame in container.decode(stream):
            parts += [part.to_ndarray() for part in resampler.resample(frame)]
        parts += [part.to_ndarray() for part in resampler.resample(None)] if parts else []
        seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
    waveform = np.concatenate(parts, axis=1).T if parts else np.zeros((0, 1), np.float32)
    if 0 < len(waveform) < WHOLE * seconds * rate - rate // 10:
        got = len(waveform) / rate
        raise MediaError(f"{path}: truncated, {got:.2f} s of {seconds:.2f} s of sound; replace the file")
    return np.ascontiguousarray(waveform, dtype=np.float32), rate
