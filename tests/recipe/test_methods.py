"""Comparison methods from training to the table, by the command that reproduces it; started again, and with
another setting."""

import json
import subprocess

import pytest

from tests.recipe.studies import ROOT, Study, small_benchmark

pytestmark = pytest.mark.recipe
TRAIN = "--num_train_epochs 1 --expert_rank 4 --replay_samples 3"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two tasks of a few questions."""
    folder = tmp_path_factory.mktemp("methods")
    path = small_benchmark(folder / "data", train=6, test=2)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "tasks": content["tasks"][:2]}))
    return Study(folder / "study", path)


RULES = ("anchor_moe_published", "anchor_moe_lda", "anchor_moe_autonomy")


def reproduce(study: Study, methods: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "scripts" / "reproduce_table.sh"), str(study.benchmark), methods, "0"]
    return subprocess.run(
        [*command, "--quiet", "--feature_store", str(study.store)],
        env=study.environment | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_table_of_methods(study: Study) -> None:
    done = reproduce(study, f"replay ewc {' '.join(RULES)}", TRAIN_FLAGS=TRAIN)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    summary = json.loads((study.folder / "results" / "summary.json").read_text())
    assert set(summary["methods"]) == {"anchor_moe", "replay", "ewc", *RULES}
    assert set(summary["tests"]) == {"replay", "ewc", *RULES}
    assert summary["methods"]["ewc"]["matrix"][0][0] is not None
    for name in RULES:
        entry = summary["methods"][name]
        assert entry["routing_accuracy"] is not None and entry["matrix"][0][1] is not None
    table = (study.folder / "results" / "summary.md").read_text()
    assert "Routing: anchor MoE by LDA" in table
    assert "experience replay" in table and "elastic weight consolidation (EWC)" in table
    made = study.folder / "output" / "comparisons"
    kept = json.loads((made / "replay" / "experts" / "expert_task_1.replay.json").read_text())
    assert [len(indices) for indices in kept.values()] == [2, 1]

    (made / "ewc" / "experts" / "expert_task_1.run.json").unlink()  # as if killed just before the end
    (made / "ewc" / "experts" / "expert_task_1.pt").unlink()
    flags = ("--methods", "anchor_moe replay ewc", *TRAIN.split())
    assert "1 trained, 5 skipped" in study.train(*flags).stdout
    other = study.train(*flags, "--ewc_lambda", "7", check=False)
    assert other.returncode == 1
    assert "settings.ewc_lambda: was" in other.stderr and "is 7.0" in other.stderr
