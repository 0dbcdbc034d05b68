"""The two drivers end to end: every artifact, skipping, refusing, restarting, given experts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.recipe.commands import run_python
from tests.recipe.studies import Study

pytestmark = pytest.mark.recipe
METHODS = ("anchor_moe", "oracle", "sequential", "joint", "zero_shot", "blind")
FLAGS = ("--num_train_epochs", "1", "--expert_rank", "4")
STEMS = ("task0_come", "task1_happening", "task2_where", "task3_which")


@pytest.fixture(scope="module")
def study(recipe_folder: Path, benchmark_file: Path) -> Study:
    """A study that was trained and evaluated once with all methods."""
    made = Study(recipe_folder / "main", benchmark_file)
    made.run("train_all_tasks.sh", *FLAGS)
    made.run("eval_all_tasks.sh")
    return made


def digests(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*_task_*.pt"))}


def test_the_published_files_are_there(study: Study) -> None:
    output = study.folder / "output"
    for task in range(4):
        expert = torch.load(output / "experts" / f"expert_task_{task}.pt", weights_only=True)
        assert "model.layers.0.mlp.gate_proj.lora_A.weight" in expert
        anchor = torch.load(output / "anchors" / f"anchor_task_{task}.pt", weights_only=True)
        assert set(anchor) == {"text", "video", "audio"}
        assert all(value.ndim == 1 for value in anchor.values())
        record = json.loads((output / "experts" / f"expert_task_{task}.run.json").read_text())
        assert record["identity"]["config"]["epochs"] == 1
        assert record["provenance"]["versions"]["torch"]
    for name in ("train_all_tasks.log", "train_all_tasks.err", "eval_all_tasks.log", "eval_all_tasks.err"):
        assert (study.folder / "logs" / name).is_file()
    assert "tiny" in (study.folder / "logs" / "train_all_tasks.log").read_text()


def test_results_are_the_samples_with_text_and_routing(study: Study, benchmark_file: Path) -> None:
    for stem, name in zip(STEMS, ("Come_From", "Happening", "Where", "Which"), strict=True):
        results = json.loads((study.folder / "results" / f"{stem}_results.json").read_text())
        asked = json.loads((benchmark_file.parent / f"test_{name}.json").read_text())
        assert [{k: v for k, v in row.items() if k not in ("text", "routing")} for row in results] == asked
        for row in results:
            assert isinstance(row["text"], str)
            assert row["routing"]["task"] in range(4)
            assert set(row["routing"]["modality_scores"]) >= {"text", "video", "audio"}


def test_the_summary_has_every_method_and_its_formulas(study: Study) -> None:
    summary = json.loads((study.folder / "results" / "summary.json").read_text())
    assert set(summary["methods"]) == set(METHODS)
    assert summary["tasks"] == ["Come", "Happening", "Where", "Which"]
    for name, entry in summary["methods"].items():
        assert {"matrix", "MA", "AF", "Avg", "FM", "BWT", "FWT", "routing_accuracy", "n", "n_failed"} <= set(
            entry
        )
        assert entry["n"] == 16, name
        assert entry["MA"] is not None, name
    assert summary["methods"]["joint"]["matrix"][0] == [None] * 4
    assert summary["formulas"]["MA"]
    for name in ("summary.md", "accuracy_matrix.png", "forgetting.png", "routing_confusion.png"):
        assert (study.folder / "results" / name).stat().st_size > 0


def test_the_report_leaves_nothing_out(study: Study) -> None:
    page = (study.folder / "results" / "report.html").read_text(encoding="utf-8")
    for key in ("results", "matrices", "forgetting", "routing", "modalities", "map", "cost", "leakage"):
        assert f'id="r-results-{key}"' in page, key
    assert page.count("data:image/jpeg") > 10 and page.count("<polyline") >= 16
    assert "Left out" not in page and "not recorded" not in page
    assert " ms a question (" in page
    for name in ("report.md", "report.tex"):
        assert (study.folder / "results" / name).stat().st_size > 5000


def test_experts_can_choose_themselves(study: Study) -> None:
    results = study.folder / "autonomy"
    study.run("eval_all_tasks.sh", "--router", "autonomy", METHODS="anchor_moe blind", RESULTS=str(results))
    summary = json.loads((results / "summary.json").read_text())
    assert summary["provenance"]["router"]["router"] == "autonomy"
    for row in json.loads((results / "task2_where_results.json").read_text()):
        scores = row["routing"]["scores"]
        assert row["routing"]["task"] == int(max(scores, key=scores.get)) and min(scores.values()) > 0
        assert row["routing"]["modality_scores"] == {}


def test_modalities_are_examined_by_one_command(study: Study, benchmark_file: Path) -> None:
    """By the anchors that were evaluated, with the same result."""
    out = study.folder / "modalities.json"
    places = ("--benchmark", benchmark_file, "--output", study.folder / "output", "--json", out)
    done = run_python("scripts/examine_modalities.py", *places, "--feature_store", study.store, "--quiet")
    found = json.loads(out.read_text())
    assert [list(rules) for rules in found.values()] == [["cosine", "lda", "raw"]] * 7
    entry = json.loads((study.folder / "results" / "summary.json").read_text())["methods"]["anchor_moe"]
    evaluated = {"all": entry["routing_accuracy"]}
    evaluated |= {name: part["accuracy"] for name, part in entry["routing_by_modality"].items()}
    for name in ("all", "text", "video", "audio"):
        assert found[name]["cosine"]["micro"] == pytest.approx(evaluated[name], abs=0.001), name
    assert done.stdout.splitlines()[-7].startswith("all ")


def test_what_is_finished_is_skipped_and_kept(study: Study) -> None:
    before = digests(study.folder / "output")
    left = study.folder / "output" / "AVQACL-MoE_task0_ckpt"  # as by a kill just before it is deleted
    shutil.copy(study.folder / "output" / "experts" / "expert_task_0.run.json", left / "identity.json")
    (left / "state.pt").write_bytes(b"left")
    done = study.run("train_all_tasks.sh", *FLAGS, "--save_steps", "7", "--logging_steps", "3")
    assert "13 skipped" in done.stdout, done.stdout
    assert digests(study.folder / "output") == before


def test_changed_settings_are_refused_with_the_keys(study: Study) -> None:
    before = digests(study.folder / "output")
    done = study.run("train_all_tasks.sh", *FLAGS, "--learning_rate", "0.5", check=False)
    assert done.returncode == 1
    assert "config.learning_rate: was 0.005, is 0.5" in done.stderr
    assert "--overwrite" in done.stderr
    assert digests(study.folder / "output") == before


def test_evaluation_goes_on_where_it_was_killed(study: Study) -> None:
    book = study.folder / "results" / "answers.jsonl"
    lines = book.read_bytes().splitlines(keepends=True)
    book.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:20])  # half the answers and a torn line
    wanted = (study.folder / "results" / "summary.json").read_text()
    study.run("eval_all_tasks.sh")
    again = (study.folder / "results" / "summary.json").read_text()
    assert json.loads(again)["methods"] == json.loads(wanted)["methods"]
    assert len(book.read_bytes().splitlines()) == len(lines)


def test_given_experts_are_evaluated_without_training(study: Study) -> None:
    other = Study(study.folder.parent / "given", study.benchmark)
    done = other.run(
        "eval_all_tasks.sh", EXPERTS=str(study.folder / "output"), METHODS="anchor_moe sequential"
    )
    assert "not run" in done.stdout
    results = other.folder / "results" / "task0_come_results.json"
    assert results.read_text() == (study.folder / "results" / "task0_come_results.json").read_text()
