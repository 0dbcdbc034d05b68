"""SIGKILL at random moments of training: started again each time, it ends with the same files, bit for bit.

KILLS=10 python -m pytest tests/recipe/test_kill_and_resume.py runs the long form.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.recipe.studies import ROOT, Study, small_benchmark

pytestmark = pytest.mark.recipe
FLAGS = ("--num_train_epochs", "12", "--per_device_train_batch_size", "2", "--save_steps", "5")
START_SECONDS = 3.0  # below this only imports would be killed


def trained(study: Study) -> dict[str, bytes]:
    """Name -> content of every expert and anchor file."""
    output = study.folder / "output"
    files = [*output.glob("experts/*.pt"), *output.glob("anchors/anchor_task_*")]
    return {path.name: path.read_bytes() for path in sorted(files)}


def run_until_killed(study: Study, seconds: float) -> bool:
    """Run the driver, kill its whole process group after `seconds`; whether it had ended before."""
    process = subprocess.Popen(
        study.command("train_all_tasks.sh", *FLAGS),
        env=study.environment | {"METHODS": "anchor_moe"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False


def test_killed_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    benchmark = small_benchmark(tmp_path / "data", train=12)
    whole = Study(tmp_path / "whole", benchmark)
    started = time.monotonic()
    whole.run("train_all_tasks.sh", *FLAGS, METHODS="anchor_moe")
    duration = time.monotonic() - started
    wanted = trained(whole)
    assert len(wanted) == 12  # expert, anchor and statistics of four tasks

    (tmp_path / "other").mkdir()
    killed = Study(
        tmp_path / "other" / "killed", benchmark
    )  # with a feature store of its own, killed as well
    kills = int(os.environ.get("KILLS", "2"))
    moments = random.Random(len(os.environ.get("KILLS", "")))
    happened = 0
    for _ in range(kills):
        happened += not run_until_killed(
            killed, moments.uniform(START_SECONDS, max(duration, START_SECONDS + 1))
        )
    killed.run("train_all_tasks.sh", *FLAGS, METHODS="anchor_moe")
    assert happened > 0, "every run ended before it was killed; nothing was tested"
    assert trained(killed) == wanted
