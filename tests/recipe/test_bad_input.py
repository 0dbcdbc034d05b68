"""Bad input ends in one clear message before the long work, and what was learned before stays as it was."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from tests.recipe.studies import Study, small_benchmark

pytestmark = pytest.mark.recipe
FLAGS = ("--num_train_epochs", "1", "--expert_rank", "4")
OURS = ("--methods", "anchor_moe")


def edit(path: Path, index: int, **changes: object) -> None:
    """Change fields of one sample; None removes a field."""
    samples = json.loads(path.read_text())
    samples[index].update(changes)
    samples[index] = {key: value for key, value in samples[index].items() if value is not None}
    path.write_text(json.dumps(samples))


def test_every_fault_is_named_before_training(tmp_path: Path, recipe_folder: Path) -> None:
    benchmark = small_benchmark(tmp_path / "data", train=6)
    come, where, which = (
        tmp_path / "data" / f"train_{name}.json" for name in ("Come_From", "Where", "Which")
    )
    (tmp_path / "cut.jpg").write_bytes(Path(json.loads(where.read_text())[0]["video"][0]).read_bytes()[:300])
    turns = [{"from": "human", "value": "<video>\n<audio>\nWhere?"}, {"from": "gpt", "value": " "}]
    edit(come, 1, voice=[str(tmp_path / "gone.wav")])
    edit(where, 2, video=[str(tmp_path / "cut.jpg")])  # in a file that has faults of the other kind too
    edit(where, 1, voice=None, video=json.loads(where.read_text())[0]["video"][:1] or None)
    edit(where, 3, conversations=turns)
    edit(which, 4, id=json.loads(which.read_text())[0]["id"])
    study = Study(recipe_folder / "bad", benchmark)
    done = study.run("train_all_tasks.sh", *FLAGS, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for place in (
        "train_Come_From.json, index 1, ",
        "train_Where.json, index 1, ",
        "train_Where.json, index 2, ",
        "train_Where.json, index 3, ",
        "train_Which.json, index 4, ",
    ):
        assert place in done.stderr, done.stderr
    assert not list((study.folder / "output").rglob("*.pt"))


def test_a_full_disk_while_saving_loses_nothing(recipe_folder: Path, benchmark_file: Path) -> None:
    study = Study(recipe_folder / "full", benchmark_file)
    study.train(*FLAGS, *OURS)
    experts = study.folder / "output" / "experts"
    kept = {path.name: path.read_bytes() for path in experts.iterdir()}
    (experts / "expert_task_3.pt").unlink()
    (experts / "expert_task_3.run.json").unlink()
    small = 16 * 1024  # bytes that a file may have
    done = study.train(
        *FLAGS, *OURS, check=False, first=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (small, small))
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    assert "File too large" in done.stderr, done.stderr
    left = {path.name: path.read_bytes() for path in experts.iterdir()}
    assert left == {name: content for name, content in kept.items() if "task_3" not in name}
    study.train(*FLAGS, *OURS)
    assert (experts / "expert_task_3.pt").read_bytes() == kept["expert_task_3.pt"]


def test_experts_of_another_base_are_refused(
    recipe_folder: Path, benchmark_file: Path, tmp_path: Path
) -> None:
    import torch

    study = Study(recipe_folder / "full", benchmark_file)  # trained by the test above, or now
    study.train(*FLAGS, *OURS)
    given = tmp_path / "given"
    for name in ("experts", "anchors"):
        (given / name).mkdir(parents=True)
        for path in (study.folder / "output" / name).iterdir():
            (given / name / path.name).write_bytes(path.read_bytes())
    content = torch.load(given / "experts" / "expert_task_2.pt", weights_only=True)
    content["expert"]["base_identity"] = "0" * 64
    torch.save(content, given / "experts" / "expert_task_2.pt")
    done = study.evaluate(*OURS, "--experts", str(given), check=False)
    assert done.returncode == 1
    assert "expert_task_2.pt: made for base 0000000000000000" in done.stderr, done.stderr
