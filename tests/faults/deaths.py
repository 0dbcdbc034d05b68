"""One of several processes of a run dies: one forked to encode, train or answer, or a rank of a launch."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.faults.jobs import (
    Ended,
    Job,
    Study,
    differences,
    evaluate,
    finished,
    lost_since,
    outcome,
    run,
    train,
)
from tests.faults.tally import Tally
from tests.recipe.studies import ROOT

Command = Callable[[Study], int]
SHARED = ("--jobs", "2")
SMALL = ("--batch_size", "2")  # so that there are batches to share
WORK: dict[str, tuple[Command, str]] = {  # what the processes do: the command, and the files that they begin
    "encoding": (lambda study: train(study, *SHARED), "feature_store/??/*.safetensors"),
    "training": (lambda study: train(study, *SHARED), "output/**/state.pt"),
    "answering": (lambda study: evaluate(study, *SHARED, *SMALL), "results/answers.rank*.jsonl"),
}
FLAGS = ("--num_train_epochs", "20", "--per_device_train_batch_size", "2", "--save_steps", "2")


def case_worker(root: Path, reference: Study, kills: int) -> Tally:
    """One of two forked processes is killed, `kills` times while they encode, train and answer each: the run
    says so, and restarted it goes on from there."""
    tally = Tally("worker dies")
    whole = replace(reference, folder=root / "worker", flags=FLAGS, methods="anchor_moe sequential")

    def rest(study: Study) -> int:
        return train(study) or evaluate(study, *SMALL)

    run(whole, lambda: rest(whole))
    wanted = outcome(whole)
    for number in range(kills):
        for what, (command, begun) in WORK.items():
            study = replace(whole, folder=root / f"worker_{what}{number}")
            for made in ("output", "feature_store") if what == "answering" else ():
                shutil.copytree(whole.folder / made, study.folder / made)
            job = Job(study, partial(command, study))
            while not any(study.folder.glob(begun)) and not job.has_ended():
                time.sleep(0.002)
            if workers := children(job.pid):
                os.kill(workers[number % len(workers)], signal.SIGKILL)
            ended = job.wait()
            before = finished(study)
            loss = ended.unclear("a process ended with status -9", "start again")
            again = run(study, partial(rest, study))
            loss = loss or lost_since(before, study) or differences(wanted, outcome(study))
            loss = loss or (again.errors[-300:] if again.status else None)
            tally.count(loss and f"while {what}: {loss}")
            shutil.rmtree(study.folder)
    tally.notes.append(", ".join(f"{kills} {what}" for what in WORK))
    return tally


def children(pid: int) -> list[int]:
    """The processes that a process has started and that go on."""
    with contextlib.suppress(OSError):  # it has ended
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def case_rank(root: Path, reference: Study, kills: int) -> Tally:
    """Rank 0 and rank 1 of a launch are killed, `kills` times each, in every task in turn: the launch ends
    and names the rank; restarted it leaves the same files."""
    tally = Tally("rank dies")
    whole = replace(reference, folder=root / "ranks", flags=FLAGS)
    _launch(whole)
    wanted = outcome(whole)
    tasks = len(list(whole.output.glob("experts/*.pt")))
    for number in range(2 * kills):
        rank, task = number % 2, number // 2 % tasks
        study = replace(whole, folder=root / f"ranks{number}")
        ended = _launch(study, rank, f"*_task{task}_ckpt/state.pt")
        loss = _unclear(ended, rank)
        before = finished(study)
        again = _launch(study)
        loss = loss or lost_since(before, study) or differences(wanted, outcome(study))
        loss = loss or (again.errors[-300:] if again.status else None)
        tally.count(loss and f"rank {rank} in task {task}: {loss}")
        shutil.rmtree(study.folder)
    return tally


def _unclear(ended: Ended, rank: int) -> str | None:
    """Why the end of a launch does not say what happened; the only traceback is the launcher's own."""
    own, _, report = ended.errors.rpartition("Traceback (most recent call last)")
    if ended.status != 1 or "Traceback" in own:
        return f"ended with status {ended.status}: {own[-300:]}"
    missing = [words for words in (f"rank      : {rank} ", "Signal 9 (SIGKILL)") if words not in report]
    return f"the launcher's report lacks {missing}: {report[-300:]}" if missing else None


def _launch(study: Study, victim: int | None = None, begun: str = "") -> Ended:
    """Two processes under torchrun train; the rank `victim` is killed once a file `begun` is there."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    line = [part for part in study.train_line()[1:] if part not in ("--jobs", "0")]
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        launch = subprocess.Popen(
            [sys.executable, *torchrun, "train/train_all.py", *line],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        if victim is not None:
            while launch.poll() is None and not any(study.output.glob(begun)):
                time.sleep(0.005)
            for pid in children(launch.pid):
                with contextlib.suppress(OSError):  # it has ended
                    if f"RANK={victim}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                        os.kill(pid, signal.SIGKILL)
        status = launch.wait()
        errors.seek(0)
        return Ended(status, errors.read(), Counter(), time.monotonic() - started)
