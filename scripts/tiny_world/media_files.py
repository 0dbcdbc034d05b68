"""Writing clips to media files, byte for byte the same on every run with the same library versions.

F frames, H height, W width, n samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

from .voices import RATE


def write_frames(paths: Sequence[Path], frames: np.ndarray) -> None:
    """Write (F, H, W, 3) uint8 as F JPEG files."""
    for path, frame in zip(paths, frames, strict=True):
        Image.fromarray(frame).save(path, quality=82, optimize=True)


def write_flac(path: Path, wave: np.ndarray) -> None:
    """Write (n,) float32 as 16-bit mono FLAC."""
    soundfile.write(path, wave, RATE, format="FLAC", subtype="PCM_16")


def write_ogg(path: Path, wave: np.ndarray, bit_rate: int = 24_000) -> None:
    """Write (n,) float32 as mono Opus in an Ogg container (Vorbis writers draw a random stream number)."""
    with av.open(str(path), "w", format="ogg", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libopus", rate=RATE)
        stream.bit_rate = bit_rate
        stream.layout = "mono"
        _mux_audio(container, stream, wave)


def write_mp4(path: Path, frames: np.ndarray, wave: np.ndarray) -> None:
    """Write (F, H, W, 3) uint8 and (n,) float32 as one H.264 and AAC file in which both last equally long."""
    rate = Fraction(len(frames) * RATE, len(wave)).limit_denominator(1000)
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        # x264's macroblock tree and its threads decide differently from run to run on frames this small.
        video = container.add_stream("libx264", rate=rate, options={"crf": "20", "x264-params": "mbtree=0"})
        video.codec_context.thread_count = 1
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        audio = container.add_stream("aac", rate=RATE)
        audio.bit_rate = 48_000
        audio.layout = "mono"
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        _mux_audio(container, audio, wave)


def _mux_audio(container: av.container.OutputContainer, stream: av.AudioStream, wave: np.ndarray) -> None:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[None, :]), format="flt", layout="mono")
    frame.sample_rate = RATE
    frame.pts = 0
    frame.time_base = Fraction(1, RATE)
    resampler = av.AudioResampler(
        format=stream.format, layout="mono", rate=RATE, frame_size=stream.frame_size or 0
    )
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))
