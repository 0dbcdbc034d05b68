"""Files that survive a crash: the old content or the new, never half of either."""

import multiprocessing
import os
import resource
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from data.files import (
    append_line,
    only_run_for,
    only_run_in,
    read_sealed_lines,
    require_unchanged,
    require_writable,
    seal,
    write_bytes_atomic,
    write_sums,
)
from model.moe.files import atomic_write


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "expert.pt"
    write_bytes_atomic(path, b"old")
    with pytest.raises(OSError, match="full"), atomic_write(path) as file:
        file.write(b"half of the new")
        raise OSError("disk full")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["expert.pt"]


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    append_line(path, seal({"key": 1}))
    with path.open("ab") as file:
        file.write(b'{"key": 2, "te')
    assert read_sealed_lines(path, {"key"}) == [{"key": 1}]
    append_line(path, seal({"key": 3}))
    assert read_sealed_lines(path, {"key"}) == [{"key": 1}, {"key": 3}]


def test_a_damaged_line_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "answers.jsonl"
    lines = [seal({"key": key}) for key in ("ab", "cd", "ef")]
    path.write_text(
        "\n".join([lines[0], lines[1].replace("cd", "ce"), lines[2], '{"key": "old"}', "[]"]) + "\n"
    )
    assert read_sealed_lines(path, {"key"}) == [{"key": "ab"}, {"key": "ef"}, {"key": "old"}]
    assert "2 of 5 lines are damaged" in caplog.text


def test_sums_tell_a_changed_file(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}")
    write_sums(tmp_path, [tmp_path / "summary.json"])
    require_unchanged(tmp_path / "summary.json")
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(ValueError, match="summary.json: changed since SHA256SUMS"):
        require_unchanged(tmp_path / "summary.json")


def _try_to_enter(folder: Path, results: "multiprocessing.Queue[str]") -> None:
    try:
        with only_run_in(folder, patience=0.2):
            results.put("entered")
    except ValueError as error:
        results.put(str(error))


def test_a_second_run_on_one_folder_is_refused(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with only_run_in(tmp_path):
        other = context.Process(target=_try_to_enter, args=(tmp_path, results))
        other.start()
        other.join()
    told = results.get()
    assert f"another run is writing here (process {os.getpid()} on {socket.gethostname()})" in told
    assert told.endswith("choose another output folder")
    _try_to_enter(tmp_path, results)
    assert results.get() == "entered"


def test_one_output_is_held_and_not_those_beside_it(tmp_path: Path) -> None:
    with (
        only_run_for(tmp_path / "a.jsonl"),
        only_run_for(tmp_path / "b.jsonl"),
        pytest.raises(ValueError, match=rf"a.jsonl: another run .* \(process {os.getpid()} on "),
        only_run_for(tmp_path / "a.jsonl", patience=0),
    ):
        pass
    with only_run_for(tmp_path / "a.jsonl", patience=0), only_run_in(tmp_path, patience=0):
        pass


def _on_a_full_disk(folder: Path, results: "multiprocessing.Queue[str]") -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for attempt in (lambda: append_line(folder / "lines", "one"), lambda: only_run_in(folder).__enter__()):
        try:
            attempt()
        except OSError as error:
            results.put(str(error))


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    other = context.Process(target=_on_a_full_disk, args=(tmp_path, results))
    other.start()
    told = [results.get(timeout=30) for _ in range(2)]
    other.join()
    for text, name in zip(told, ("lines", ".lock"), strict=True):
        assert "free some space and start again" in text and str(tmp_path / name) in text


def _hold(folder: Path, entered: Any, seconds: float) -> None:
    with only_run_in(folder):
        entered.set()
        time.sleep(seconds)


def test_a_run_that_is_just_ending_is_waited_for(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    entered = context.Event()
    other = context.Process(target=_hold, args=(tmp_path, entered, 0.3))
    other.start()
    assert entered.wait(30)
    with only_run_in(tmp_path, patience=30):
        assert not (other.join(30) or other.exitcode)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="another output folder"):
        require_writable(tmp_path / "file" / "below")
