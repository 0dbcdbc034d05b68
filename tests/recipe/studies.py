"""Small studies for the recipes: few questions per task of the sample data, tiny backbone, real scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.recipe.commands import ROOT, run_python


def small_benchmark(folder: Path, train: int = 8, test: int = 4) -> Path:
    """A benchmark file over the first questions of every task of data_sample, media by absolute path."""
    folder.mkdir(parents=True, exist_ok=True)
    source = ROOT / "data_sample" / "avqa.json"
    benchmark = json.loads(source.read_text())
    for task in benchmark["tasks"]:
        for split, count in (("train", train), ("val", test), ("test", test)):
            samples = json.loads((source.parent / task[split]).read_text())[:count]
            for sample in samples:
                for field in ("video", "voice", "image"):
                    value = sample.get(field)
                    if isinstance(value, str):
                        sample[field] = str(source.parent / value)
                    elif value is not None:
                        sample[field] = [str(source.parent / path) for path in value]
            (folder / task[split]).write_text(json.dumps(samples))
    path = folder / "avqa.json"
    path.write_text(json.dumps(benchmark))
    return path


@dataclass(frozen=True)
class Study:
    """Where one study reads and writes, and how its scripts are run."""

    folder: Path
    benchmark: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the drivers; the features of all recipes share one store."""
        return {
            **os.environ,
            "PYTHON": sys.executable,
            "BENCHMARK": str(self.benchmark),
            "OUTPUT": str(self.folder / "output"),
            "RESULTS": str(self.folder / "results"),
            "LOGS": str(self.folder / "logs"),
        }

    @property
    def store(self) -> Path:
        """The feature store."""
        return self.folder.parent / "feature_store"

    def command(self, script: str, *flags: str) -> list[str]:
        """The command line of a driver."""
        return ["bash", str(ROOT / script), "--quiet", "--feature_store", str(self.store), *flags]

    def run(
        self, script: str, *flags: str, check: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a driver to its end; with `check` a failure shows what it printed."""
        done = subprocess.run(
            self.command(script, *flags),
            env=self.environment | variables,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not check or done.returncode == 0, f"{script} failed:\n{done.stdout}\n{done.stderr}"
        return done

    def train(
        self, *flags: str, check: bool = True, first: Callable[[], object] = lambda: None
    ) -> subprocess.CompletedProcess[str]:
        """What the training driver starts, without the driver; see `run_python`."""
        places = ("--benchmark", self.benchmark, "--output", self.folder / "output")
        everywhere = ("--feature_store", self.store, "--quiet")
        return run_python("train/train_all.py", *places, *everywhere, *flags, check=check, first=first)

    def evaluate(self, *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """What the evaluation driver starts, without the driver; see `run_python`."""
        places = ("--benchmark", self.benchmark, "--output", self.folder / "output")
        places += ("--results", self.folder / "results")
        everywhere = ("--feature_store", self.store, "--quiet")
        return run_python("evaluation/eval_all.py", *places, *everywhere, *flags, check=check)
