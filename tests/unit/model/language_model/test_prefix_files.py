"""Prefixes on disk: damage is found, a full disk stops nothing, killed processes leave nothing for long."""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from data.parallel import run_forked
from model.language_model.prefix import PrefixBounds, PrefixCache
from model.language_model.prefix_files import sweep

FORK = multiprocessing.get_context("fork")
WEEK_AND_MORE = 8 * 24 * 3600


class Made:
    """A cache whose memory holds one prefix of 64 bytes, and what it computed."""

    def __init__(self, root: Path, disk: int = 10**6) -> None:
        self.calls = calls = list[int]()

        def compute(ids: torch.Tensor, media: object) -> torch.Tensor:
            calls.append(int(ids))
            return torch.full((4, 1, 2, 2), float(ids))

        self.cache = PrefixCache(compute, PrefixBounds(memory=64, disk=disk, folder=root))

    def get(self, *numbers: int) -> None:
        """Get these prefixes, which must have their values."""
        for number in numbers:
            found = self.cache.get(torch.tensor([number]), [])
            assert torch.equal(found, torch.full((4, 1, 2, 2), float(number)))


def stored(root: Path) -> list[Path]:
    return sorted(root.glob("prefixes_*/*.pt"))


def test_flipped_bits_are_found_and_the_prefix_is_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Made(tmp_path)
    made.get(7, 8)
    [path] = stored(tmp_path)
    whole, values = path.read_bytes(), torch.full((4, 1, 2, 2), 7.0).numpy().tobytes()
    start = whole.index(values)
    for place in (start, start + len(values) - 1):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1
        path.write_bytes(spoilt)
        caplog.clear()
        made.get(7)
        assert f"{path} is damaged (the checksum of record" in caplog.text
        assert "the prefix is computed again" in caplog.text
        made.get(8)  # 7 goes to disk again, whole
        assert path.read_bytes() == whole and made.cache.disk_size == 128
    assert made.calls == [7, 8, 7, 7]


@pytest.mark.parametrize("length", [0, 3, 200, -1, None])
def test_torn_and_lost_files_are_computed_again(
    tmp_path: Path, length: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    made = Made(tmp_path)
    made.get(7, 8)
    [path] = stored(tmp_path)
    if length is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:length])
    made.get(7)
    assert made.calls == [7, 8, 7]
    assert str(path) in caplog.text and "the prefix is computed again" in caplog.text
    assert not path.exists()
    made.get(8, 7)
    assert made.calls == [7, 8, 7], "written and read as ever"


def _fill(root: Path, size: int) -> tuple[list[int], list[str], list[Path]]:
    """Calls, warnings and files of a process whose disk is full from `size` bytes a file on."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("model.language_model.prefix_files").addHandler(handler)
    made = Made(root)
    made.get(1, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    made.get(1, 3, 1, 2, 3)
    return made.calls, told, stored(root)


@pytest.mark.parametrize("size", [0, 100, 600])
def test_a_full_disk_is_told_once_and_given_back(tmp_path: Path, size: int) -> None:
    [(calls, told, files)] = run_forked([lambda: _fill(tmp_path, size)], jobs=1)
    assert calls == [1, 2, 3, 1, 2, 3]
    [text] = told
    assert "File too large" in text and "no longer kept on disk" in text
    assert str(tmp_path / "prefixes_") in text
    assert files == []


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "store").write_text("a file")
    made = Made(tmp_path / "store")
    made.get(1, 2, 1)
    assert made.calls == [1, 2, 1]
    assert f"{tmp_path / 'store'}: no prefixes are kept on disk" in caplog.text


def test_without_locks_nothing_is_put_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    made = Made(tmp_path)
    made.get(1, 2, 1)
    assert made.calls == [1, 2, 1] and list(tmp_path.iterdir()) == []
    assert "Operation not supported" in caplog.text


@contextmanager
def other_process(work: Callable[[Connection], None]) -> Iterator[Connection]:
    """A forked process that does `work` with one end of a pipe; killed at the end, if it still runs."""
    ours, theirs = FORK.Pipe()

    def child() -> None:
        ours.close()
        work(theirs)

    process = FORK.Process(target=child)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join()
        ours.close()


def _hold(root: Path, pipe: Connection) -> None:
    made = Made(root)
    made.get(1, 2)
    pipe.send(os.getpid())
    pipe.recv()
    made.get(1)
    pipe.send(made.calls)
    pipe.recv()


def test_a_killed_process_s_folder_goes_and_a_living_one_s_stays(tmp_path: Path) -> None:
    with other_process(lambda pipe: _hold(tmp_path, pipe)) as pipe:
        pipe.recv()
        [path] = stored(tmp_path)
        sweep(tmp_path)
        os.utime(path.parent, (time.time() - WEEK_AND_MORE,) * 2)
        Made(tmp_path).get(1, 2)
        assert path.is_file(), "in use, however long ago it was used"
        pipe.send("go on")
        assert pipe.recv() == [1, 2], "1 came back from disk"
    assert path.is_file(), "SIGKILL leaves it"
    made = Made(tmp_path, disk=0)  # without a bound, too
    assert list(tmp_path.iterdir()) == [] and made.cache.disk_size == 0


def _fork_and_die(root: Path, pipe: Connection) -> None:
    made = Made(root)
    made.get(1, 2)
    if os.fork():
        os.kill(os.getpid(), signal.SIGKILL)
    pipe.send(os.getpid())
    with suppress(EOFError):
        pipe.recv()  # until the other end is closed
    os._exit(0)


def test_a_folder_stays_while_a_process_forked_from_its_owner_lives(tmp_path: Path) -> None:
    with other_process(lambda pipe: _fork_and_die(tmp_path, pipe)) as pipe:
        child = pipe.recv()
        for owner in multiprocessing.active_children():
            owner.join()
        [path] = stored(tmp_path)
        sweep(tmp_path)
        assert path.is_file()
        os.kill(child, signal.SIGKILL)
    until = time.monotonic() + 30
    while path.exists() and time.monotonic() < until:
        sweep(tmp_path)
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []


def _in_a_fork(made: Made, root: Path) -> tuple[list[int], int]:
    """What a forked process computes, and how many files there are while it lives."""
    made.calls.clear()
    made.get(1, 3, 4, 3)
    files = len(stored(root))
    made.cache.clear()
    return made.calls, files


def test_forked_processes_share_the_folder_and_leave_only_what_is_not_theirs(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.get(1, 2)
    [path] = stored(tmp_path)
    assert run_forked([partial(_in_a_fork, made, tmp_path)], jobs=1) == [([3, 4], 4)]  # 1; its own: 2, 3, 4
    assert stored(tmp_path) == [path], "cleared was what it had written"
    run_forked([partial(made.get, 3, 4)], jobs=1)  # does not clear
    assert stored(tmp_path) == [path], "its files go with it"
    made.get(1)
    assert made.calls == [1, 2]
    del made
    assert list(tmp_path.iterdir()) == []


def _leave(made: list[Made], root: Path) -> list[Path]:
    made[0].get(3, 4)
    made.clear()
    return stored(root)


def test_a_cache_that_a_forked_process_lets_go_of_stays_with_its_parent(tmp_path: Path) -> None:
    made = [Made(tmp_path)]
    made[0].get(1, 2)
    assert run_forked([lambda: _leave(made, tmp_path)], jobs=1) == [stored(tmp_path)]
    made[0].get(1)
    assert made[0].calls == [1, 2]


@pytest.mark.parametrize(
    ("name", "lock", "age", "stays"),
    [
        (f"{socket.gethostname()}_0a", True, 0, False),
        ("elsewhere_0a", True, 0, True),
        ("elsewhere_0a", True, WEEK_AND_MORE, False),
        (f"new_{socket.gethostname()}_0a", True, 0, True),  # being made just now
        ("k3_xw1bz", False, 0, True),  # of an earlier version
        ("k3_xw1bz", False, WEEK_AND_MORE, False),
    ],
)
def test_which_folders_are_swept(tmp_path: Path, name: str, lock: bool, age: int, stays: bool) -> None:
    folder = tmp_path / f"prefixes_{name}"
    folder.mkdir()
    (folder / "0a_1.pt").touch()
    if lock:
        (folder / ".lock").touch()
    os.utime(folder, (time.time() - age,) * 2)
    sweep(tmp_path)
    assert folder.exists() == stays
    assert (folder / "0a_1.pt").exists() == stays


def test_nothing_else_is_swept(tmp_path: Path) -> None:
    kept = tmp_path / f"prefixes_{socket.gethostname()}_0a" / "notes.txt"
    kept.parent.mkdir()
    kept.touch()
    (kept.parent / ".lock").touch()
    (tmp_path / "prefixes_file").touch()
    (tmp_path / "ab").mkdir()
    sweep(tmp_path)
    assert kept.is_file()
    assert {path.name for path in tmp_path.iterdir()} == {kept.parent.name, "prefixes_file", "ab"}
