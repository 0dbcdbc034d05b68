"""Forked pieces of work: in order, one thread each, stopped by an error, gone with their parent."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from data.parallel import run_forked


def runs(pid: int) -> bool:
    """Whether a process exists and is no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_results_come_in_order_from_processes_of_one_thread() -> None:
    def slow_first(number: int) -> tuple[int, int, int]:
        time.sleep(0.2 if number == 0 else 0.0)
        return number, os.getpid(), torch.get_num_threads()

    found = run_forked([partial(slow_first, number) for number in range(3)], jobs=2)
    assert [number for number, _, _ in found] == [0, 1, 2]
    assert len({pid for _, pid, _ in found} | {os.getpid()}) == 4
    assert {threads for _, _, threads in found} == {1}


def test_no_more_than_jobs_run_at_a_time(tmp_path: Path) -> None:
    def count(number: int) -> int:
        mine = tmp_path / str(number)
        mine.touch()
        time.sleep(0.1)
        running = len(list(tmp_path.iterdir()))
        mine.unlink()
        return running

    assert max(run_forked([partial(count, number) for number in range(5)], jobs=2)) <= 2


def test_an_error_is_the_callers_and_stops_the_rest(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError("No space left on device")

    def never_ends() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(600)

    with pytest.raises(ValueError, match="No space left"):
        run_forked([never_ends, full], jobs=2)
    if (tmp_path / "pid").exists():
        assert not runs(int((tmp_path / "pid").read_text()))


def test_a_killed_process_is_an_error_with_its_status() -> None:
    with pytest.raises(ChildProcessError, match="status -9"):
        run_forked([lambda: os.kill(os.getpid(), signal.SIGKILL)], jobs=1)


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path; from data.parallel import run_forked\n"
        "def work():\n    Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)\n"
        "run_forked([work], jobs=1)"
    )
    file = tmp_path / "pid"
    root = Path(__file__).parents[3]
    parent = subprocess.Popen([sys.executable, "-c", program, str(file)], cwd=root)
    while not (file.exists() and file.read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while runs(int(file.read_text())):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)
