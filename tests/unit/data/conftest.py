"""Small media files and sample files, written on the fly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image


class Files:
    """Writes files below a folder; every method returns the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def samples(self, *items: Any, name: str = "samples.json") -> Path:
        """A sample file of these items."""
        path = self.path(name)
        path.write_text(json.dumps(list(items)))
        return path

    def picture(self, name: str, grey: int = 128, size: tuple[int, int] = (24, 16)) -> Path:
        """An evenly grey picture (width, height); lossless suffixes keep the grey exactly."""
        path = self.path(name)
        Image.new("RGB", size, (grey, grey, grey)).save(path)
        return path

    @staticmethod
    def tone(seconds: float = 0.5, rate: int = 16_000, level: float = 0.5) -> NDArray[np.float32]:
        """A 440 Hz sine, (n,)."""
        return (level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)

    def sound(
        self, name: str, waveform: NDArray[Any] | None = None, rate: int = 16_000, subtype: str | None = None
    ) -> Path:
        """A sound file (n,) or (n, channels) in the format of its suffix; a tone by default."""
        import soundfile

        path = self.path(name)
        soundfile.write(path, self.tone(rate=rate) if waveform is None else waveform, rate, subtype=subtype)
        return path

    def video(
        self,
        name: str,
        greys: Sequence[int] = (20, 60, 100, 140, 180, 220),
        waveform: NDArray[np.float32] | None = None,
        *,
        rate: int = 16_000,
        size: tuple[int, int] = (64, 48),
        empty_sound: bool = False,
    ) -> Path:
        """A video of evenly grey frames at 4 frames/s, with sound where a waveform is given."""
        import av

        path = self.path(name)
        with av.open(str(path), "w") as container:
            video = container.add_stream("mpeg4", rate=4)
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            heard = waveform is not None or empty_sound
            sound = container.add_stream("aac", rate=rate, layout="mono") if heard else None
            for number, grey in enumerate(greys):
                picture = np.full((size[1], size[0], 3), grey, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 4)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            if sound is not None and waveform is not None:
                part = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
                part.sample_rate, part.pts = rate, 0
                container.mux(sound.encode(part))
            if sound is not None:
                container.mux(sound.encode(None))
        return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Writer of files below tmp_path."""
    return Files(tmp_path)
