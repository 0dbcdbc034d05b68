from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.feature_files import FeatureFiles, FeatureMemory
from model.encoders.features import MediaFeatures

KEY = "ab" + "0" * 62


def features(seed: int = 0, tokens: int = 3, dtype: torch.dtype = torch.float32) -> MediaFeatures:
    generator = torch.Generator().manual_seed(seed)
    return MediaFeatures(
        torch.randn(tokens, 4, generator=generator).to(dtype), torch.randn(5, generator=generator)
    )


def same(one: MediaFeatures | None, other: MediaFeatures) -> bool:
    assert one is not None
    assert one.tokens.dtype == other.tokens.dtype
    return torch.equal(one.tokens, other.tokens) and torch.equal(one.routing, other.routing)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_written_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    files = FeatureFiles(tmp_path / "new" / "store")
    assert not files.holds(KEY)
    assert files.read(KEY) is None
    files.write(KEY, features(dtype=dtype))
    assert files.holds(KEY)
    assert files.path(KEY).parent.name == "ab"
    assert same(files.read(KEY), features(dtype=dtype))
    assert list((files.root / "writing").iterdir()) == []
    assert files.size_bytes() == files.path(KEY).stat().st_size > 3 * 4 * 2 + 5 * 4


def test_damage_at_any_byte_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = FeatureFiles(tmp_path)
    files.write(KEY, features())
    whole = files.path(KEY).read_bytes()
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x10
        files.path(KEY).write_bytes(spoilt)
        found = files.read(KEY)
        assert found is None or same(found, features()), f"byte {place} went unnoticed"
        if found is None:
            assert not files.holds(KEY)
    assert "is damaged" in caplog.text and "the clip is encoded again" in caplog.text


def test_torn_files_count_as_absent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = FeatureFiles(tmp_path)
    files.write(KEY, features())
    whole = files.path(KEY).read_bytes()
    with caplog.at_level(logging.CRITICAL):
        for length in range(len(whole)):
            files.path(KEY).write_bytes(whole[:length])
            assert files.read(KEY) is None


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FeatureFiles(tmp_path)
    files.write(KEY, features(0))

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        OSError, match="No space left on device; features cannot be stored, free some space"
    ) as caught:
        files.write(KEY, features(1))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path)
    assert same(files.read(KEY), features(0))
    assert list((tmp_path / "writing").iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(OSError, match="features cannot be stored"):
        FeatureFiles(tmp_path / "store").write(KEY, features())


def test_old_leftovers_are_swept_and_new_ones_kept(tmp_path: Path) -> None:
    files = FeatureFiles(tmp_path)
    files.sweep()  # nothing there yet
    old, new = tmp_path / "writing/old", tmp_path / "writing/new"
    old.parent.mkdir()
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    files.sweep()
    assert list(old.parent.iterdir()) == [new]


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=40), st.integers(0, 300))
def test_memory_stays_within_its_bound(steps: list[tuple[bool, int]], bound: int) -> None:
    memory, order = FeatureMemory(bound), []
    sizes = {number: features(number, tokens=number + 1) for number in range(6)}
    for put, number in steps:
        key = str(number)
        if put:
            memory.put(key, sizes[number])
        found = memory.get(key)
        if put or found is not None:
            order = [k for k in order if k != number] + [number]
        if found is not None:
            assert found is sizes[number]
        assert memory.size <= bound
    held = [number for number in range(6) if memory.get(str(number)) is not None]
    assert memory.size == sum(sizes[n].tokens.nbytes + sizes[n].routing.nbytes for n in held)
    recent = list(reversed(order))[: len(held)]
    too_large = any(sizes[n].tokens.nbytes + sizes[n].routing.nbytes > bound for n in order)
    assert sorted(recent) == held or too_large  # what is held was used last
