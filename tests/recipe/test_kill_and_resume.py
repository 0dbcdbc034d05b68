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
FLAGS = ("--num_train_epochs", "6", "--per_device_train_batch_size", "2", "--save_steps", "5")
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
    duration = max(time.monotonic() - started, START_SECONDS + 1)
    wanted = trained(whole)
    assert len(wanted) == 12  # expert, anchor and statistics of four tasks

    kills = int(os.environ.get("KILLS", "2"))
    moments = random.Random(len(os.environ.get("KILLS", "")))
    latest, happened = duration, 0
    for number in range(kills + 6):
        if happened == kills:
            break
        (tmp_path / f"try{number}").mkdir()  # with a feature store of its own, killed as well
        killed, ended = Study(tmp_path / f"try{number}" / "killed", benchmark), False
        while happened < kills and not ended:
            ended = run_until_killed(killed, moments.uniform(START_SECONDS, latest))
            happened += not ended
        if ended:  # before it was killed: begin anew, and kill earlier
            latest = max(0.7 * latest, START_SECONDS + 1)
        else:
            killed.train(*FLAGS, "--methods", "anchor_moe")
        assert trained(killed) == wanted
    assert happened == kills, f"only {happened} of {kills} runs could be killed before they ended"
