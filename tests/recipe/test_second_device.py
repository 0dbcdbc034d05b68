"""Commands on a device that is not the CPU, against what they do on the CPU: every method, both kinds of
expert, every scope; multi-task models. Without a GPU: see tests/second_device.py.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.recipe.commands import run_python
from tests.recipe.studies import small_benchmark
from tests.second_device import DEVICE, SecondDevice, There, become_device
from train.checkpoints import CheckpointFolder

KILLED = 9
TRAINING = ("--num_train_epochs", "1", "--per_device_train_batch_size", "2", "--save_steps", "2")
MULTI_TASK = (
    "--encoder plain --width 4 --head_width 8 --img_size 3 24 32 --train_bs 2 --test_bs 2 --epochs 1 --quiet"
)
CASES = {
    "every method, answer": ("all", "--expert_tokens", "answer"),
    "all tokens": ("anchor_moe", "--expert_tokens", "all", "--gradient_checkpointing", "True"),
    "text": ("anchor_moe", "--expert_tokens", "text", "--lora_dropout", "0.1"),
    "full MLP": ("anchor_moe", "--llm_lora_enable", "False", "--expert_tokens", "all"),
}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of a few questions."""
    path = small_benchmark(tmp_path_factory.mktemp("benchmark"), train=5, test=2)
    tasks = json.loads(path.read_text())
    path.write_text(json.dumps({**tasks, "tasks": tasks["tasks"][:2]}))
    return path


@pytest.mark.parametrize("case", CASES)
def test_commands_on_another_device(case: str, benchmark: Path, tmp_path: Path) -> None:
    methods, *flags = CASES[case]
    for where, first in (("cpu", lambda: None), ("there", become_device)):
        folder = tmp_path / where
        common = ("--benchmark", benchmark, "--output", folder / "output", "--quiet", "--jobs", "0")
        common += ("--feature_store", folder / "store", "--methods", methods, "--attn_implementation", "sdpa")
        run_python("train/train_all.py", *common, *TRAINING, *flags, first=first)
        run_python("evaluation/eval_all.py", *common, "--results", folder / "results", first=first)
    here, there = (losses(tmp_path / where / "output") for where in ("cpu", "there"))
    assert here and there == pytest.approx(here, rel=1e-5)
    assert answers(tmp_path / "there") == answers(tmp_path / "cpu")


def test_a_killed_training_goes_on_there(benchmark: Path, tmp_path: Path) -> None:
    flags = ("--benchmark", benchmark, "--feature_store", tmp_path / "store", "--methods", "anchor_moe")
    flags += ("--quiet", "--jobs", "0", "--attn_implementation", "sdpa", *TRAINING)
    killed = run_python(
        "train/train_all.py", *flags, "--output", tmp_path / "a", first=die_there, check=False
    )
    assert killed.returncode == KILLED
    done = run_python("train/train_all.py", *flags, "--output", tmp_path / "a", first=become_device)
    assert "resuming at step 2 of 3" in done.stdout
    run_python("train/train_all.py", *flags, "--output", tmp_path / "b", first=become_device)
    first, second = ((tmp_path / name / "experts" / "expert_task_0.pt").read_bytes() for name in "ab")
    assert first == second


def die_there() -> None:
    """Become the second device, and end as a killed process does with the first checkpoint written."""
    become_device()
    save = CheckpointFolder.save

    def save_and_die(self: CheckpointFolder, state: dict[str, Any]) -> None:
        save(self, state)
        os._exit(KILLED)

    CheckpointFolder.save = save_and_die  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("arch", "experts", "weighting"), [("AOEMTL", "1 1", "EW"), ("CGC", "1 1", "UW"), ("MMoE", "2", "MGDA")]
)
def test_multi_task_model_on_another_device(arch: str, experts: str, weighting: str, tmp_path: Path) -> None:
    rooms = tmp_path / "rooms"
    run_python("examples/nyu/make_rooms.py", rooms, "--train", 6, "--val", 2, "--size", 24, 32)
    flags = ("--arch", arch, "--num_experts", *experts.split(), "--weighting", weighting, *MULTI_TASK.split())
    for where, first in (("cpu", lambda: None), ("there", become_device)):
        folder = tmp_path / where
        given = (*flags, "--dataset_path", rooms, "--save_path", folder)
        run_python("examples/nyu/main.py", *given, first=first)
    here, there = (read(tmp_path / where / "result.json")["test"] for where in ("cpu", "there"))
    for task, values in here.items():
        assert there[task] == pytest.approx(values, rel=1e-3, abs=1e-4)  # kernels round in another order


def losses(output: Path) -> dict[str, float]:
    """Expert -> its last loss."""
    records = {str(path.relative_to(output)): read(path) for path in output.rglob("expert_task_*.run.json")}
    return {name: record["training"]["final_loss"] for name, record in records.items()}


def answers(folder: Path) -> list[str]:
    """All texts, whatever they answer: the hash of an answer's expert changes with its last bits."""
    lines = (folder / "results" / "answers.jsonl").read_text().splitlines()
    assert lines
    return sorted(json.loads(line)["text"] for line in lines)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_tensors_of_two_devices_are_noticed() -> None:
    with SecondDevice():
        a, b = torch.ones(2, 3, device=DEVICE), torch.tensor([[1.0], [2.0]], device=DEVICE)
        assert isinstance(a, There) and isinstance(b, There) and a.device == DEVICE
        assert (a * b).cpu().tolist() == [[1.0] * 3, [2.0] * 3]
        a[:, 1] += 1.0  # a view of it
        assert float(a.sum()) == 8.0 and a[b[:, 0] > 1].tolist() == [[1.0, 2.0, 1.0]]
        with pytest.raises(RuntimeError, match=r"two devices: \(2, 3\) on meta, \(3,\) on cpu"):
            a + torch.ones(3)
        with pytest.raises(RuntimeError, match="two devices"):
            torch.cat([a, torch.ones(1, 3)])
        assert (a + torch.ones(3).to(DEVICE)).cpu().sum() == 14.0
