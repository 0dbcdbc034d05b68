from __future__ import annotations

import re
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data import decoding
from data.decoding import (
    MediaError,
    NoSoundError,
    has_sound,
    read_picture,
    read_sound,
    read_video_frames,
    uniform_indices,
)


def grey_of(picture: Image.Image) -> float:
    return float(np.asarray(picture).mean())


def cut(path: Path, share: float = 0.5) -> Path:
    """The same file, torn off."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


# -- pictures


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pictures_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    Image.new("RGB", (8, 6), (255, 255, 255)).convert(mode).save(path)
    picture = read_picture(path)
    assert (picture.mode, picture.size) == ("RGB", (8, 6))
    assert grey_of(picture) == 255


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    path = tmp_path / "p.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    Image.new("RGB", (8, 6)).save(path, exif=exif)
    assert read_picture(path).size == (6, 8)


def test_pictures_with_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(np.full((4, 4), 30_000, np.uint16)).save(path)
    with pytest.raises(MediaError, match="p.png: picture mode is I;16; save it with 8 bits per channel"):
        read_picture(path)


@pytest.mark.parametrize("name", ["p.jpg", "p.png", "p.webp", "p.bmp"])
def test_truncated_pictures(files: Any, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    path = files.path(name)
    Image.fromarray(noise).save(path)
    with pytest.raises(MediaError, match=re.escape(str(path)) + ".* cannot be decoded"):
        read_picture(cut(path))


READERS = [read_picture, lambda path: read_video_frames(path, 4), read_sound]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("suffix", [".jpg", ".wav", ".mp4", ".m4a", ".flac"])
def test_missing_empty_and_foreign_files(files: Any, read: Any, suffix: str) -> None:
    path = files.path(f"x{suffix}")
    with pytest.raises(
        MediaError, match=re.escape(str(path)) + ": no such file; check the path and the media root"
    ):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(MediaError, match=re.escape(str(path))):
        read(path)
    path.write_text("this is a text and no medium at all" * 20)
    with pytest.raises(MediaError, match=re.escape(str(path))):
        read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(MediaError, match="is a folder, not a file"):
        read(path)


# -- frames


@given(st.integers(1, 400), st.integers(1, 40))
def test_uniform_indices(total: int, count: int) -> None:
    chosen = uniform_indices(total, count)
    assert len(chosen) == min(total, count)
    assert chosen == sorted(set(chosen))
    assert 0 <= chosen[0] and chosen[-1] < total
    ends = [index + mirror for index, mirror in zip(chosen, reversed(chosen), strict=True)]
    assert all(total - 2 <= end <= total for end in ends)  # symmetric up to rounding


def test_uniform_indices_are_centres_of_segments() -> None:
    assert uniform_indices(30, 4) == [3, 11, 18, 26]
    assert uniform_indices(8, 8) == list(range(8))


def test_video_frames(files: Any) -> None:
    greys = (20, 60, 100, 140, 180, 220)
    path = files.video("v.mp4", greys)
    for count, wanted in ((3, [60, 140, 220]), (6, list(greys)), (9, list(greys)), (1, [140])):
        pictures = read_video_frames(path, count)
        assert [p.mode for p in pictures] == ["RGB"] * len(wanted)
        assert [grey_of(p) for p in pictures] == pytest.approx(wanted, abs=3)
    assert pictures[0].size == (64, 48)


@pytest.mark.parametrize("name", ["v.mkv", "v.avi", "v.mov"])
def test_other_containers(files: Any, name: str) -> None:
    path = files.video(name, (20, 120, 220), files.tone())
    assert [grey_of(p) for p in read_video_frames(path, 3)] == pytest.approx([20, 120, 220], abs=3)
    assert len(read_sound(path)[0]) == pytest.approx(8000, abs=2100)


def test_videos_are_turned_upright(files: Any) -> None:
    path = files.video("v.mp4", (100, 100))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # version 0: the matrix stands 40 bytes into the box
    turned = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    content[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turned)
    path.write_bytes(content)
    assert read_video_frames(path, 1)[0].size == (48, 64)


def test_videos_without_frames_or_video_stream(files: Any) -> None:
    with pytest.raises(MediaError, match="holds no video stream; give a video file or a list of frames"):
        read_video_frames(files.sound("a.wav"), 4)
    with pytest.raises(MediaError, match="v.mkv"):
        read_video_frames(files.video("v.mkv", ()), 4)


def test_truncated_videos(files: Any) -> None:
    whole = files.video("v.mkv", range(0, 240, 4))
    assert len(read_video_frames(whole, 60)) == 60
    with pytest.raises(MediaError, match=r"v.mp4: .*(cannot be decoded|truncated)"):
        read_video_frames(cut(files.video("v.mp4", range(0, 240, 4))), 8)


def test_a_video_whose_header_announces_more_than_it_holds(files: Any) -> None:
    path = files.video("v.mp4", range(0, 240, 4))
    content = path.read_bytes()
    movie = content.index(b"moov") - 4  # move the header to the front, then tear off the data
    path.write_bytes(content[:movie])
    size = int.from_bytes(content[movie : movie + 4], "big")
    header = bytearray(content[movie : movie + size])
    start = content.index(b"mdat") - 4
    at = header.index(b"stco") + 12
    offset = int.from_bytes(header[at : at + 4], "big")
    header[at : at + 4] = (offset + size).to_bytes(4, "big")
    front = content[:start] + bytes(header) + content[start:movie]
    path.write_bytes(front)
    assert len(read_video_frames(path, 60)) == 60
    path.write_bytes(front[: len(front) * 2 // 3])
    with pytest.raises(MediaError, match=r"v.mp4: truncated, \d+ of 60 frames left"):
        read_video_frames(path, 8)


# -- sound


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("a.wav", 1e-4), ("a.flac", 1e-4), ("a.ogg", 0.05), ("a.mp3", 0.05), ("a.aiff", 1e-4)],
)
def test_sound_files(files: Any, name: str, tolerance: float) -> None:
    stereo = np.stack([files.tone(), -0.5 * files.tone()], axis=1)
    waveform, rate = read_sound(files.sound(name, stereo))
    assert (waveform.dtype, rate) == (np.float32, 16_000)
    assert waveform.shape == stereo.shape
    assert np.abs(waveform - stereo)[500:-500].max() < tolerance


def test_values_above_full_scale_are_kept(files: Any) -> None:
    waveform, _ = read_sound(files.sound("a.wav", files.tone(level=1.5), subtype="FLOAT"))
    assert np.abs(waveform).max() == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize("name", ["a.m4a", "v.mp4"])
def test_sound_of_containers(files: Any, name: str) -> None:
    path = files.video(name, waveform=files.tone(1.0, 22_050), rate=22_050)
    waveform, rate = read_sound(path)
    assert rate == 22_050
    assert waveform.shape == (pytest.approx(22_050, abs=1024), 1)
    assert np.abs(waveform[2000:20000, 0] - files.tone(1.0, 22_050)[2000:20000]).max() < 0.05


def test_tags_that_are_no_utf8(files: Any) -> None:
    """A RIFF title in Latin-1, as old recorders write it."""
    path = files.sound("x.wav", files.tone())
    title = "caf\u00e9\0".encode("latin-1")
    tags = b"INFO" + b"INAM" + len(title).to_bytes(4, "little") + title + b"\0" * (len(title) % 2)
    content = path.read_bytes() + b"LIST" + len(tags).to_bytes(4, "little") + tags
    renamed = path.with_suffix(".mka")  # by FFmpeg, not by the reader of plain WAV files
    renamed.write_bytes(content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:])
    assert len(read_sound(renamed)[0]) > 0


def test_files_without_sound(files: Any) -> None:
    with pytest.raises(
        NoSoundError, match=r"mute.mp4: holds no sound stream; remove the <audio> tag or give 'voice'"
    ):
        read_sound(files.video("mute.mp4"))
    with pytest.raises(NoSoundError, match="a.wav: holds no sound, 0 samples"):
        read_sound(files.sound("a.wav", np.zeros(0)))
    with pytest.raises(NoSoundError, match="empty.mkv: holds no sound, 0 samples"):
        read_sound(files.video("empty.mkv", empty_sound=True))


def test_has_sound(files: Any) -> None:
    assert has_sound(files.video("loud.mp4", waveform=files.tone()))
    assert has_sound(files.sound("a.flac"))
    assert not has_sound(files.video("mute.mp4"))
    assert not has_sound(files.video("empty.mkv", empty_sound=True))
    with pytest.raises(MediaError, match="no such file"):
        has_sound(files.path("gone.mp4"))


def test_samples_that_are_not_finite(files: Any) -> None:
    waveform = files.tone()
    waveform[3] = np.nan
    with pytest.raises(MediaError, match="samples that are not finite"):
        read_sound(files.sound("a.wav", waveform, subtype="FLOAT"))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "v.mp4"])
def test_truncated_sound(files: Any, name: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 64_000).astype(np.float32)
    path = files.video(name, waveform=noise) if name == "v.mp4" else files.sound(name, noise)
    read_sound(path)
    with pytest.raises(MediaError, match=re.escape(str(path)) + r": (truncated|cannot be decoded)"):
        read_sound(cut(path))


def test_a_wav_of_unknown_length_is_no_truncated_one(files: Any) -> None:
    path = files.sound("a.wav")
    content = bytearray(path.read_bytes())
    content[4:8] = b"\xff" * 4  # as a pipe leaves it
    path.write_bytes(content)
    assert len(read_sound(path)[0]) == 8000


def test_nothing_is_left_open(files: Any, tmp_path: Path) -> None:
    for path in (files.sound("a.wav"), files.video("v.mp4", waveform=files.tone())):
        read_sound(path)
    shutil.rmtree(tmp_path)  # a ResourceWarning would fail the test


# -- what would need more memory or time than a clip has a claim to, or opens something else


def png(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds nothing of it."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize("size", [(10_000, 10_000), (60_000, 60_000)])
def test_a_picture_that_would_unpack_to_gigabytes(files: Any, size: tuple[int, int]) -> None:
    path = files.path("bomb.png")
    path.write_bytes(png(*size))
    with pytest.raises(MediaError, match=re.escape(str(path))):
        read_picture(path)


def test_a_program_is_no_picture(files: Any) -> None:
    path = files.path("p.jpg")
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(MediaError, match=r"p\.jpg: cannot be decoded"):
        read_picture(path)


def test_a_wav_that_announces_hours(files: Any) -> None:
    path = files.sound("s.wav")
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", 1)  # one sample a second: 16000 samples last 4 hours
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"s\.wav: longer than 3600 s"):
        read_sound(path)


def test_endless_sound_and_video_are_bounded(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.video("v.mp4", waveform=files.tone(1.0))
    monkeypatch.setattr(decoding, "MAX_FRAMES", 5)
    with pytest.raises(MediaError, match=r"v\.mp4: more than 5 frames"):
        read_video_frames(path, 2)
    monkeypatch.setattr(decoding, "MAX_VALUES", 2000)
    with pytest.raises(MediaError, match=r"v\.mp4: longer than"):
        read_sound(path)
    monkeypatch.setattr(decoding, "MAX_SECONDS", 1)
    with pytest.raises(MediaError, match=r"v\.mp4: longer than 1 s"):
        has_sound(path)


def test_a_playlist_opens_no_other_file(files: Any) -> None:
    video = files.video("v.mp4")
    path = files.path("list.mp4")
    for text in (f"ffconcat version 1.0\nfile {video.name}\n", f"#EXTM3U\n#EXTINF:1,\n{video.name}\n"):
        path.write_text(text)
        with pytest.raises(MediaError, match=r"list\.mp4: cannot be decoded"):
            read_video_frames(path, 2)
