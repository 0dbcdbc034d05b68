"""The job that faults happen to: encode, train two tasks, evaluate; the real commands in forked processes.

A forked process starts in no time with everything imported, so that a kill costs what the work up to it does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import eval_anchor
from data.benchmark import read_benchmark
from data.command_line import main_command
from data.files import SUMS, sha256_file
from evaluation import eval_all
from tests.faults.crash import Fault, watch_files
from tests.recipe.studies import ROOT, small_benchmark
from train import train_all

HANG = 3600.0  # seconds after which a job counts as hanging
TRAIN_FLAGS = ("--num_train_epochs", "3", "--per_device_train_batch_size", "2", "--save_steps", "2")


@dataclass(frozen=True)
class Study:
    """Where one job reads and writes."""

    folder: Path
    benchmark: Path
    flags: tuple[str, ...] = field(default=TRAIN_FLAGS)
    methods: str = "anchor_moe"

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def store(self) -> Path:
        return self.folder / "feature_store"

    def train_line(self, *more: str) -> list[str]:
        """Command line of the training."""
        line = ["train_all.py", "--benchmark", str(self.benchmark), "--output", str(self.output), "--quiet"]
        line += ["--feature_store", str(self.store), "--methods", self.methods, "--jobs", "0", *self.flags]
        return [*line, *more]

    def eval_line(self, *more: str) -> list[str]:
        """Command line of the evaluation."""
        line = ["eval_all.py", "--benchmark", str(self.benchmark), "--output", str(self.output), "--quiet"]
        line += ["--results", str(self.results), "--feature_store", str(self.store)]
        return [*line, "--methods", self.methods, "--max_new_tokens", "8", *more]

    def file_line(self) -> list[str]:
        """Command line that answers the questions of the first task alone."""
        questions = read_benchmark(self.benchmark).tasks[0].test
        line = ["eval_anchor.py", "--data_path", str(questions), "--output", str(self.folder / "file.json")]
        line += ["--anchor_save_path", str(self.output / "anchors"), "--quiet"]
        line += ["--expert_weights_save_path", str(self.output / "experts")]
        return [*line, "--feature_store", str(self.store), "--max_new_tokens", "8"]


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    status: int  # exit status; negative: the signal that ended it
    errors: str  # what it wrote to stderr
    operations: Counter[str]  # file operations by phase; of a job that ended by itself
    seconds: float

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL

    def unclear(self, *words: str) -> str | None:
        """Why this is no clear refusal: not status 1, a traceback, or a word missing; None if it is one."""
        if self.status != 1:
            return f"ended with status {self.status} in place of 1: {self.errors[-300:]}"
        if "Traceback" in self.errors:
            return f"ended with a traceback: {self.errors[-300:]}"
        missing = [word for word in ("error: ", *words) if word not in self.errors]
        return f"the error lacks {missing}: {self.errors[-300:]}" if missing else None


def make_benchmark(folder: Path, tasks: int = 2, train: int = 4, test: int = 2) -> Path:
    """The first tasks of the small benchmark of the recipes."""
    path = small_benchmark(folder, train=train, test=test)
    benchmark = json.loads(path.read_text())
    benchmark["tasks"] = benchmark["tasks"][:tasks]
    path.write_text(json.dumps(benchmark))
    return path


def both(study: Study) -> int:
    """Train, then evaluate."""
    return train(study) or evaluate(study)


def train(study: Study, *more: str) -> int:
    """The training command; its exit status."""
    sys.argv = study.train_line(*more)
    return main_command(train_all.parser(), train_all.main)


def evaluate(study: Study, *more: str) -> int:
    """The evaluation command; its exit status."""
    sys.argv = study.eval_line(*more)
    return main_command(eval_all.parser(), eval_all.main)


def answer_file(study: Study) -> int:
    """The command that answers one file; its exit status."""
    sys.argv = study.file_line()
    return main_command(eval_anchor.parser(), eval_anchor.main)


class Job:
    """A forked process that does `work`, in a process group of its own."""

    def __init__(self, study: Study, work: Callable[[], int], fault: Fault | None = None) -> None:
        study.folder.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        self._told, telling = os.pipe()  # "!" at the fault, or at the end "." and the operations
        self._said, saying = os.pipe()  # stderr: no file, since its disk may be full
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _live(study, work, fault, telling, saying)
        os.close(telling)
        os.close(saying)

    def kill(self) -> None:
        """SIGKILL to the job and all it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def has_ended(self) -> bool:
        """Whether it has."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self, *, kill_after: float | None = None, delay: float = 0.0) -> Ended:
        """Until it has ended; killed `kill_after` seconds after its start, or `delay` after it has told."""
        deadline = self.started + (kill_after or HANG)
        content: dict[int, bytes] = {self._told: b"", self._said: b""}
        still = set(content)
        while still:
            ready = select.select(still, [], [], max(deadline - time.monotonic(), 0.0))[0]
            if not ready:
                self.kill()
                break
            for pipe in ready:
                piece = os.read(pipe, 1 << 16)
                content[pipe] += piece
                if not piece:
                    still.discard(pipe)
            if content[self._told].startswith(b"!"):
                time.sleep(delay)
                self.kill()
                break
        _, raw = os.waitpid(self.pid, 0)
        for pipe in content:
            os.close(pipe)
        told, said = content[self._told], content[self._said].decode(errors="replace")
        operations = pickle.loads(told[1:]) if told.startswith(b".") else Counter()
        return Ended(os.waitstatus_to_exitcode(raw), said, operations, time.monotonic() - self.started)


def _live(study: Study, work: Callable[[], int], fault: Fault | None, telling: int, saying: int) -> None:
    """The forked process; it does not return."""
    status = 70
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(saying, 2)
        os.close(saying)
        os.chdir(ROOT)

        def tell() -> None:
            os.write(telling, b"!")

        seen = watch_files(study.folder, fault, tell)
        status = work()
        os.write(telling, b"." + pickle.dumps(seen))
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(status)


def run(study: Study, work: Callable[[], int] | None = None, fault: Fault | None = None) -> Ended:
    """Do `work` (train and evaluate) to its end."""
    return Job(study, work or (lambda: both(study)), fault).wait()


def preload(study: Study) -> Ended:
    """Run the job once and import here what it imported, so that forks need not; how it ended."""
    names = study.folder / "modules.json"

    def work() -> int:
        status = both(study)
        names.write_text(json.dumps(sorted(sys.modules)))
        return status

    ended = run(study, work)
    for name in json.loads(names.read_text()) if names.is_file() else ():
        if not name.startswith("__"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    return ended


# -- what a job leaves


def outcome(study: Study) -> dict[str, Any]:
    """All that must be the same however often a job was interrupted, by name."""
    found: dict[str, Any] = {}
    for path in sorted((*study.output.rglob("*.pt"), *study.output.rglob("*.safetensors"))):
        found[str(path.relative_to(study.folder))] = sha256_file(path)
    for path in study.output.rglob("*.run.json"):
        found[str(path.relative_to(study.folder))] = json.loads(path.read_text())["identity"]
    for path in study.store.rglob("??/*.safetensors"):
        found[path.name] = sha256_file(path)
    for path in study.results.rglob("*_results.json"):
        found[path.name] = path.read_text()
    summary = study.results / "summary.json"
    if summary.is_file():
        content = json.loads(summary.read_text())
        content.pop("provenance")
        found["summary.json"] = content
    found["answers"] = {key: text for key, text, _ in answers(study)}
    found["sums"] = sums_fit(study.results)
    return found


def answers(study: Study) -> list[tuple[str, str, int]]:
    """(key, text, how often it was answered) of all complete lines.

    What has been settled stands in the files of its process too until these are deleted: no second answer.
    """
    settled, begun = _lines(study, "answers.jsonl"), _lines(study, "answers.*.jsonl")
    counts = Counter(line["key"] for line in settled) | Counter(line["key"] for line in begun)
    return [(line["key"], line["text"], counts[line["key"]]) for line in [*settled, *begun]]


def _lines(study: Study, pattern: str) -> list[dict[str, str]]:
    """The complete lines of the files of that name."""
    contents = [path.read_bytes() for path in study.results.glob(pattern)]
    return [json.loads(line) for text in contents for line in text[: text.rfind(b"\n") + 1].splitlines()]


def sums_fit(folder: Path) -> bool:
    """Whether all files that SHA256SUMS names are as it says."""
    if not (folder / SUMS).is_file():
        return False
    lines = [line.split("  ", 1) for line in (folder / SUMS).read_text().splitlines()]
    return all((folder / name).is_file() and sha256_file(folder / name) == digest for digest, name in lines)


def finished(study: Study) -> dict[str, Any]:
    """What a killed job had finished, by name: files by content and time of writing, answers by text."""
    found: dict[str, Any] = {}
    for record in study.output.rglob("*.run.json"):
        for name in json.loads(record.read_text())["files"]:
            path = next(study.output.rglob(name))
            found[f"expert file {name}"] = (sha256_file(path), path.stat().st_mtime_ns)
    for path in study.store.rglob("??/*.safetensors"):
        found[f"features {path.name}"] = (sha256_file(path), path.stat().st_mtime_ns)
    for key, text, _ in answers(study):
        found[f"answer {key}"] = text
    begun = {line["key"] for line in _lines(study, "answers.*.jsonl")}
    for line in _lines(study, "answers.jsonl"):
        if line["key"] not in begun:  # never to be answered again
            found[f"settled answer {line['key']}, not begun anew"] = True
    return found


def lost_since(before: dict[str, Any], study: Study) -> str | None:
    """What was finished before and is gone, changed or made twice now; None for nothing."""
    now = finished(study)
    gone = [name for name, value in before.items() if now.get(name) != value]
    twice = [f"answer {key} given {count} times" for key, _, count in answers(study) if count > 1]
    return "; ".join([*gone[:3], *twice[:3]]) or None


def differences(wanted: dict[str, Any], got: dict[str, Any]) -> str | None:
    """Names of what differs; None for nothing."""
    names = [name for name in sorted(wanted.keys() | got.keys()) if wanted.get(name) != got.get(name)]
    return f"differs from an undisturbed run: {', '.join(names[:4])}" if names else None
