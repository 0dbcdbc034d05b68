"""Faults around a run: read-only output, a second run, changed media, a NaN loss."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests.faults.jobs import (
    Job,
    Study,
    answer_file,
    differences,
    evaluate,
    finished,
    lost_since,
    outcome,
    run,
    train,
)
from tests.faults.tally import Tally
from train.expert_training import ExpertTraining

CAPABILITIES = 0x20080522  # version 3 of capset(2)
STEP = 3  # at which the loss becomes NaN, from 0; the last checkpoint holds two steps then


def give_up_privileges() -> None:
    """In a process of root, let the permissions of files count: drop all capabilities."""
    header, nothing = (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be made in `folder`, by a process without privileges."""
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(mode)


def case_read_only(root: Path, reference: Study, wanted: dict[str, Any]) -> Tally:
    """Each folder that is written to without permission to write, and a file in its place."""
    tally = Tally("read-only")

    def unprivileged(work: Callable[[], int]) -> Callable[[], int]:
        def do() -> int:
            give_up_privileges()
            return work()

        return do

    for name, work in (("output", train), ("feature_store", train), ("results", evaluate)):
        study = Study(root / f"read_only_{name}", reference.benchmark)
        if name == "results":
            run(study, partial(train, study))
        place = study.folder / name
        place.mkdir(parents=True)
        do = unprivileged(partial(work, study))
        with read_only(place):
            ended = run(study, do)
        tally.count(_named(ended.unclear(str(study.folder)), f"{name} read-only"))
        place.rmdir()
        place.write_text("a file where a folder is expected")
        ended = run(study, partial(work, study))
        tally.count(_named(ended.unclear(str(study.folder)), f"{name} is a file"))
        place.unlink()
        run(study)
        tally.count(_named(differences(wanted, outcome(study)), f"{name} writable again"))
        shutil.rmtree(study.folder)
    return tally


def case_two_runs(root: Path, reference: Study, wanted: dict[str, Any]) -> Tally:
    """A second run where one goes on, training, evaluating or answering a file, is refused; after a kill
    nothing is left in the way."""
    tally = Tally("two runs")
    study = Study(root / "two", reference.benchmark)
    whole = replace(reference, folder=root / "file")
    shutil.copytree(reference.output, whole.output)
    run(whole, lambda: answer_file(whole))
    wanted = wanted | {"file": (whole.folder / "file.json").read_text()}
    for name, command, lock in (
        ("training", train, "output/*/.lock"),
        ("evaluating", evaluate, "results/.lock"),
        ("answering a file", answer_file, ".lock.file.answers.jsonl"),
    ):
        tally.count(_named(_second_run(study, partial(command, study), lock), name))
        again = run(study, partial(command, study))
        tally.count(_named(again.errors[-300:] if again.status else None, f"{name} after a kill"))
    tally.count(differences(wanted, outcome(study) | {"file": (study.folder / "file.json").read_text()}))
    for folder in (study.folder, whole.folder):
        shutil.rmtree(folder)
    return tally


def _second_run(study: Study, work: Callable[[], int], lock: str) -> str | None:
    """What is unclear about the refusal of a second run; the first is killed then."""
    first = Job(study, work)
    while not any(held.read_text() for held in study.folder.glob(lock)):
        if first.has_ended():
            return f"the first ended before it could be stopped: {first.wait().errors[-300:]}"
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)
    second = run(study, work)
    os.kill(first.pid, signal.SIGCONT)
    first.kill()
    first.wait()
    return second.unclear("another run is writing here", f"process {first.pid} on ")


def case_changed_media(root: Path, reference: Study) -> Tally:
    """A clip that is replaced after it was encoded: encoded anew, and a finished expert is not passed off as
    made from it, even where size and modification time are those of before."""
    tally = Tally("changed media")
    folder = root / "changed"
    shutil.copytree(reference.benchmark.parent, folder / "data")
    train_file = min(folder.glob("data/train_Come*.json"))
    samples = json.loads(train_file.read_text())
    frame = Path(shutil.copy(samples[0]["video"][0], folder / "frame.jpg"))
    samples[0]["video"][0] = str(frame)
    train_file.write_text(json.dumps(samples))
    study = Study(folder / "study", folder / "data" / "avqa.json")
    run(study)
    wanted, before = outcome(study), finished(study)
    good, stat = frame.read_bytes(), frame.stat()
    for what, content in (
        ("another picture", _darker(good)),
        ("one of the same size and time", _commented(good)),
    ):
        frame.write_bytes(content)
        os.utime(frame, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        ended = run(study, lambda: train(study))
        tally.count(_named(ended.unclear("made with other settings", "media"), what))
        tally.count(_named(lost_since(before, study), what))
    frame.write_bytes(good)
    ended = run(study)
    got = {name: value for name, value in outcome(study).items() if name in wanted}
    tally.count(
        ended.errors[-300:] if ended.status else differences(wanted, got) or lost_since(before, study)
    )
    shutil.rmtree(folder)
    return tally


def _darker(content: bytes) -> bytes:
    """Another picture."""
    from io import BytesIO

    from PIL import Image

    made = BytesIO()
    Image.open(BytesIO(content)).point(lambda value: value // 2).save(made, "JPEG")
    return made.getvalue()


def _commented(content: bytes) -> bytes:
    """As long a picture with other content: the last bytes of its data are different."""
    return (
        content[:-20]
        + bytes(255 - byte if 0 < byte < 255 else byte for byte in content[-20:-2])
        + content[-2:]
    )


def case_nan(root: Path, reference: Study, wanted: dict[str, Any]) -> Tally:
    """A loss or a gradient that is not finite: the samples are named, and the last good state is kept."""
    tally = Tally("NaN loss")
    real = ExpertTraining._backward

    def bad_loss(self: ExpertTraining, *arguments: Any) -> torch.Tensor:
        loss = real(self, *arguments)
        return loss * float("nan") if arguments[2][0] == STEP else loss

    def bad_gradient(self: ExpertTraining, *arguments: Any) -> torch.Tensor:
        loss = real(self, *arguments)
        if arguments[2][0] == STEP:
            for parameter in self.parameters:
                assert parameter.grad is not None
                parameter.grad.fill_(float("inf"))
        return loss

    for name, bad in (("loss", bad_loss), ("gradient", bad_gradient)):
        study = Study(root / f"nan_{name}", reference.benchmark)

        def broken(study: Study = study, bad: Any = bad) -> int:
            with mock.patch.object(ExpertTraining, "_backward", bad):
                return train(study)

        ended = run(study, broken)
        loss = ended.unclear(
            f"step {STEP + 1}: the ", "samples of this step: ", "The last checkpoint is kept"
        )
        state = next(study.output.rglob("state.pt"), None)
        if state is None or torch.load(state, weights_only=True)["step"] != STEP - STEP % 2:
            loss = loss or "the last good state is not there"
        again = run(study)
        loss = loss or differences(wanted, outcome(study))
        tally.count(_named(loss or (again.errors[-300:] if again.status else None), name))
        shutil.rmtree(study.folder)
    return tally


def _named(loss: str | None, what: str) -> str | None:
    return loss and f"{what}: {loss}"
