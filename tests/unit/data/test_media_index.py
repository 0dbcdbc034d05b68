from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from data.media_index import KEY, MediaIndex


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    path = tmp_path / "m.bin"
    path.write_bytes(b"first")
    return path


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def hash_without_reading(index: MediaIndex, path: Path) -> str:
    """The hash as the index remembers it."""
    with mock.patch.object(Path, "open", side_effect=AssertionError("read again")):
        return index.content_hash(path)


def test_content_is_hashed_once(tmp_path: Path, medium: Path) -> None:
    index = MediaIndex(tmp_path / "i.jsonl")
    assert index.content_hash(medium) == sha(b"first")
    assert hash_without_reading(index, medium) == sha(b"first")
    assert hash_without_reading(MediaIndex(tmp_path / "i.jsonl"), medium) == sha(b"first")


def test_a_changed_file_is_hashed_again(tmp_path: Path, medium: Path) -> None:
    index = MediaIndex(tmp_path / "i.jsonl")
    index.content_hash(medium)
    index.mark_checked(medium, "sound")
    medium.write_bytes(b"second")
    assert index.content_hash(medium) == sha(b"second")
    assert not index.is_checked(medium, "sound")
    stat = medium.stat()
    medium.write_bytes(b"fifth!")  # as long as before, and made to look as old
    os.utime(medium, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert index.content_hash(medium) == sha(b"fifth!")


def test_checks_are_kept_per_decoder(tmp_path: Path, medium: Path) -> None:
    index = MediaIndex(tmp_path / "i.jsonl")
    index.mark_checked(medium, "sound")
    for reopened in (index, MediaIndex(tmp_path / "i.jsonl")):
        assert reopened.is_checked(medium, "sound")
        assert not reopened.is_checked(medium, "frames")
    assert not index.is_checked(tmp_path / "gone", "sound")


def test_without_a_file_nothing_is_written(tmp_path: Path, medium: Path) -> None:
    index = MediaIndex(None)
    index.mark_checked(medium, "sound")
    assert index.is_checked(medium, "sound")
    assert list(tmp_path.iterdir()) == [medium]


def test_torn_lines_spoil_nothing_else(tmp_path: Path, medium: Path) -> None:
    path = tmp_path / "i.jsonl"
    MediaIndex(path).content_hash(medium)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        MediaIndex(path).mark_checked(medium, "sound")  # appended behind the torn line
        assert MediaIndex(path).is_checked(medium, "sound")
    path.write_bytes(b'\x00\xff\n[]\n3\n{"path": 1}\n' + whole)
    assert hash_without_reading(MediaIndex(path), medium) == sha(b"first")


def test_a_damaged_line_is_left_out(tmp_path: Path, medium: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "i.jsonl"
    MediaIndex(path).content_hash(medium)
    good = path.read_bytes()
    for place in range(len(good)):
        for bit in range(8):
            flipped = bytearray(good)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            assert all(facts == {"sha256": sha(b"first")} for facts in MediaIndex(path)._facts.values()), (
                place
            )
    path.write_bytes(good.replace(sha(b"first").encode(), sha(b"other").encode()))
    caplog.clear()
    assert MediaIndex(path).content_hash(medium) == sha(b"first")
    assert "i.jsonl: 1 of 1 lines are torn or damaged" in caplog.text
    caplog.clear()
    assert hash_without_reading(MediaIndex(path), medium) == sha(b"first")  # written anew behind it


def test_lines_without_a_checksum_are_not_believed(
    tmp_path: Path, medium: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "i.jsonl"
    index = MediaIndex(path)
    key = dict(zip(KEY, index._key(medium), strict=True))
    path.write_text("\n" + json.dumps(key | {"sha256": sha(b"other"), "sound": True}) + "\n")
    assert MediaIndex(path).content_hash(medium) == sha(b"first")
    assert not MediaIndex(path).is_checked(medium, "sound")
    assert not caplog.text


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    medium = tmp_path / os.fsdecode(b"m\xff.bin")
    medium.write_bytes(b"first")
    MediaIndex(tmp_path / "i.jsonl").content_hash(medium)
    assert hash_without_reading(MediaIndex(tmp_path / "i.jsonl"), medium) == sha(b"first")


def test_several_writers(tmp_path: Path) -> None:
    media = [tmp_path / f"{i}.bin" for i in range(40)]
    for path in media:
        path.write_text(path.name)
    indices = [MediaIndex(tmp_path / "i.jsonl") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda job: indices[job % 4].content_hash(media[job // 4]), range(160)))
    reopened = MediaIndex(tmp_path / "i.jsonl")
    assert [hash_without_reading(reopened, path) for path in media] == [
        sha(path.name.encode()) for path in media
    ]
