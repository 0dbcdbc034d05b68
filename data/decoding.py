"""Decoding of single files: pictures (PIL), video files and their sound (PyAV), sound files (soundfile,
PyAV).

Every function raises MediaError, naming the file, where it is missing, unreadable, truncated or empty, and
where it would need more memory or time than a clip has a claim to: a small file can announce, or unpack to,
any amount. Only formats that hold pictures, sound and video themselves are opened, by their content and
whatever their name: none that runs a program (EPS) or names other files (playlists).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

SOUND_FILE_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au")
WHOLE = 0.9  # a stream with less than this share of what its header announces (and a little) is truncated
MAX_SECONDS = 3600  # of a sound or video
MAX_VALUES = 2**28  # samples times channels of a sound, 1 GiB
MAX_FRAMES = 250_000  # of a video
MAX_PIXELS = 89_478_485  # of a picture or frame, PIL's own limit: 256 MiB
MAX_RATE = 768_000  # Hz
PICTURE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Names of FFmpeg's demuxers, and of the protocols that they may read through.
STREAM_OPTIONS = {
    "format_whitelist": "aac,ac3,aiff,asf,au,avi,caf,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,"
    "mpegts,mpegvideo,h264,hevc,ogg,rm,w64,wav,gif",
    "protocol_whitelist": "file",
}
ONE_PICTURE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


class MediaError(ValueError):
    """A media file that cannot be used; the message names it and says why."""


class NoSoundError(MediaError):
    """A readable file that holds no sound."""


def _open_stream(path: Path) -> Any:
    """A PyAV container, of a format that reads no other file."""
    import av

    # Tags that are no UTF-8 are an error by default below PyAV 19, which no longer takes the argument.
    tags = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
    container = av.open(str(path.absolute()), options=STREAM_OPTIONS, **tags)
    if container.duration is not None and container.duration > MAX_SECONDS * av.time_base:
        container.close()
        raise MediaError(_too_long(path))
    return container


def _too_long(path: Path) -> str:
    return f"{path}: longer than {MAX_SECONDS} s, or so its header says; cut the clip"


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

    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    with (
        _naming(path, *bombs, SyntaxError, ValueError),
        Image.open(path, formats=PICTURE_FORMATS) as picture,
    ):
        _check_pixels(path, *picture.size)
        if picture.mode not in ONE_PICTURE_MODES:
            raise MediaError(f"{path}: picture mode is {picture.mode}; save it with 8 bits per channel")
        picture.load()
        return ImageOps.exif_transpose(picture).convert("RGB")


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise MediaError(f"{path}: {width} x {height} pixels, at most {MAX_PIXELS} in all; make it smaller")


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
    with _open_stream(path) as container:
        if not container.streams.video:
            raise MediaError(f"{path}: holds no video stream; give a video file or a list of frames")
        stream = container.streams.video[0]
        packets = sum(1 for packet in islice(container.demux(stream), MAX_FRAMES + 1) if packet.size)
        total = max(int(stream.frames), packets)
    if total > MAX_FRAMES:
        raise MediaError(f"{path}: more than {MAX_FRAMES} frames, or so its header says; cut the clip")
    if total == 0:
        raise MediaError(f"{path}: holds no frames; replace the file")
    return total


def _pick_frames(path: Path, wanted: Sequence[int]) -> tuple[list[Image], int]:
    """The frames at the wanted positions (ascending) and the number of all frames."""
    frames: list[Image] = []
    number = 0
    with _open_stream(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            if len(frames) < len(wanted) and wanted[len(frames)] == number:
                if frame.is_corrupt:
                    raise MediaError(f"{path}: frame {number} is damaged; replace the file")
                _check_pixels(path, frame.width, frame.height)
                frames.append(_upright(frame))
            number += 1
            if number > MAX_FRAMES:
                raise MediaError(f"{path}: more than {MAX_FRAMES} frames; cut the clip")
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

    with _naming(path, av.FFmpegError), _open_stream(path) as container:
        if not container.streams.audio:
            return False
        return any(frame.samples > 0 for frame in container.decode(audio=0))


def seconds(path: Path) -> float | None:
    """Length of a sound or video file as its header says; None where it does not say. Raises MediaError."""
    import av

    with _naming(path, av.FFmpegError), _open_stream(path) as container:
        return None if container.duration is None else container.duration / av.time_base


def _check_sound(path: Path, samples: int, channels: int, rate: int) -> None:
    """Raise MediaError for a rate that no recording has, and for more sound than a clip has."""
    if not 0 < rate <= MAX_RATE:
        raise MediaError(f"{path}: {rate} samples a second, expected at most {MAX_RATE}; save it anew")
    if samples > MAX_SECONDS * rate or samples * channels > MAX_VALUES:
        raise MediaError(_too_long(path))


def _read_sound_file(path: Path) -> tuple[NDArray[np.float32], int]:
    import soundfile

    with _naming(path, RuntimeError):  # soundfile's errors are RuntimeErrors
        _check_announced_size(path)
        with soundfile.SoundFile(path) as file:
            announced = file.frames
            _check_sound(path, announced, file.channels, file.samplerate)
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

    with _naming(path, av.FFmpegError), _open_stream(path) as container:
        if not container.streams.audio:
            raise NoSoundError(f"{path}: holds no sound stream; remove the <audio> tag or give 'voice'")
        stream = container.streams.audio[0]
        rate = int(stream.rate or 0)
        length = 0
        resampler = av.AudioResampler(format="fltp")  # keeps rate and channels
        parts: list[NDArray[np.float32]] = []  # each (channels, samples)
        for frame in container.decode(stream):
            length += frame.samples
            _check_sound(path, length, frame.layout.nb_channels, rate)
            parts += [part.to_ndarray() for part in resampler.resample(frame)]
        parts += [part.to_ndarray() for part in resampler.resample(None)] if parts else []
        seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
    waveform = np.concatenate(parts, axis=1).T if parts else np.zeros((0, 1), np.float32)
    if 0 < len(waveform) < WHOLE * seconds * rate - rate // 10:
        got = len(waveform) / rate
        raise MediaError(f"{path}: truncated, {got:.2f} s of {seconds:.2f} s of sound; replace the file")
    return np.ascontiguousarray(waveform, dtype=np.float32), rate
