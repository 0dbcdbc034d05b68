"""The Slurm scripts, run by stand-ins for Slurm's commands: the same bytes as the drivers run one by one.

Evaluation runs on two processes, one of which is killed; started again, it ends as if nothing had happened.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.recipe.studies import ROOT, Study

pytestmark = [pytest.mark.recipe, pytest.mark.long]
STAND_INS = ROOT / "tests" / "recipe" / "slurm"
TRAIN = ("--quiet", "--num_train_epochs", "1", "--expert_rank", "4", "--expert_init", "scratch")
EVALUATE = ("--quiet", "--batch_size", "2")


@pytest.fixture(scope="module")
def benchmark(recipe_folder: Path, benchmark_file: Path) -> Path:
    """The first two tasks of the small benchmark."""
    content = json.loads(benchmark_file.read_text())
    path = benchmark_file.with_name("two_tasks.json")
    path.write_text(json.dumps({**content, "tasks": content["tasks"][:2]}))
    return path


@pytest.fixture(scope="module")
def plain(recipe_folder: Path, benchmark: Path) -> Study:
    """Trained task after task and evaluated by one process, without Slurm."""
    study = Study(recipe_folder / "plain", benchmark)
    study.run("train_all_tasks.sh", *TRAIN[1:], "--jobs", "1", METHODS="anchor_moe")
    study.run("eval_all_tasks.sh", *EVALUATE[1:])
    return study


def submit(study: Study, *command: str, **variables: str) -> subprocess.Popen[str]:
    """Hand a script to the stand-in for sbatch."""
    path = f"{STAND_INS}:{os.environ['PATH']}"
    return subprocess.Popen(
        ["sbatch", *command, "--feature_store", str(study.store)],
        env=study.environment | {"PATH": path} | variables,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(job: subprocess.Popen[str]) -> None:
    printed, _ = job.communicate(timeout=900)
    assert job.returncode == 0, printed


def trained(study: Study) -> dict[str, bytes]:
    output = study.folder / "output"
    files = [*output.glob("experts/*.pt"), *output.glob("anchors/anchor_task_*")]
    return {path.name: path.read_bytes() for path in sorted(files)}


def evaluated(study: Study) -> dict[str, bytes]:
    results = study.folder / "results"
    return {
        path.name: path.read_bytes()
        for path in sorted(results.glob("*.json*"))
        if path.stem not in ("summary", "costs")
    }


def test_an_array_trains_tasks_at_the_same_time(plain: Study) -> None:
    study = Study(plain.folder.parent / "array", plain.benchmark)
    finish(submit(study, "--array=0-1", "scripts/slurm/train_array.sh", *TRAIN))
    assert len(trained(plain)) == 6  # expert, anchor and statistics of two tasks
    assert trained(study) == trained(plain)
    assert (study.folder / "logs" / "task_1" / "train_all_tasks.log").is_file()


def test_two_processes_under_slurm_train_every_task(plain: Study) -> None:
    study = Study(plain.folder.parent / "ranks", plain.benchmark)
    finish(submit(study, "scripts/slurm/train.sh", *TRAIN, METHODS="anchor_moe", PROCESSES="2"))
    made, wanted = trained(study), trained(plain)
    assert made.keys() == wanted.keys()
    for name in wanted:
        assert not name.startswith("anchor") or made[name] == wanted[name], name


@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_of_which_one_is_killed_evaluate_as_one_does(plain: Study, rank: int) -> None:
    study = Study(plain.folder.parent / f"killed{rank}", plain.benchmark)
    script, output = "scripts/slurm/eval.sh", str(plain.folder / "output")
    job = submit(study, script, *EVALUATE, OUTPUT=output, PROCESSES="2")
    begun = study.folder / "results" / f"answers.rank{rank}.jsonl"
    while job.poll() is None and not (begun.is_file() and begun.stat().st_size):
        time.sleep(0.01)
    os.kill(process_of_rank(rank, study), signal.SIGKILL)
    job.communicate(timeout=900)
    assert job.returncode != 0
    assert begun.is_file()
    finish(submit(study, script, *EVALUATE, OUTPUT=output, PROCESSES="2"))
    assert len(evaluated(plain)) == 4  # two results files, the answers and the map of the anchors
    assert evaluated(study) == evaluated(plain)
    summaries = [json.loads((s.folder / "results" / "summary.json").read_text()) for s in (plain, study)]
    assert summaries[0]["methods"] == summaries[1]["methods"]


def process_of_rank(rank: int, study: Study) -> int:
    """The process of an evaluation that its launcher gave this rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            given = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # gone, or somebody else's
            continue
        if f"RANK={rank}".encode() in given and f"RESULTS={study.folder / 'results'}".encode() in given:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")
