"""scripts/merge_experts.py and merging_curve.py on the tiny backbone, and what reads their folders."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

import scripts.merge_experts as merge
import scripts.merging_curve as curve
from data.benchmark import read_benchmark
from data.folders import stored_expert
from data.inputs import Inputs
from data.samples import read_samples
from evaluation.anchor_moe import AnchorMoE
from evaluation.answer_book import AnswerBook
from model.language_model.backbone import Backbone
from model.moe.anchor_files import save_anchor
from model.moe.experts import ExpertBank, ExpertConfig
from model.moe.peft_adapters import read_adapter
from model.moe.routing import RouterConfig
from tests.unit.scripts.exporting import TASKS, export


@pytest.fixture(scope="module")
def merged(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One expert of both tasks."""
    output = tmp_path_factory.mktemp("merging") / "merged"
    flags = [trained / "all", "--anchors", trained / "anchors", "--keep", 1, "--output", output]
    merge.main(merge.parser().parse_args(list(map(str, flags))))
    return output


def test_questions_are_routed_as_before_and_the_group_s_expert_answers(
    repo_root: Path, backbone: Backbone, inputs: Inputs, trained: Path, merged: Path, tmp_path: Path
) -> None:
    tests = [read_benchmark(repo_root / "data_sample" / "avqa.json").tasks[task].test for task in TASKS]
    samples = [sample for path in tests if path is not None for sample in read_samples(path)[:3]]
    inputs.encode(samples)

    def ask(experts: Path, anchors: Path) -> tuple[list[int], list[str], ExpertBank]:
        book = AnswerBook(tmp_path / experts.parent.name / "answers.jsonl")
        moe = AnchorMoE.assemble(inputs, backbone, experts, anchors, RouterConfig(), book)
        assert moe.answerer.model.bank is not None
        try:
            predictions = moe.predict(samples)
        finally:
            moe.answerer.model.bank.detach()
        return [p.task_id for p in predictions], [p.text for p in predictions], moe.answerer.model.bank

    before, _, _ = ask(trained / "all", trained / "anchors")
    after, texts, bank = ask(merged / "experts", merged / "anchors")
    assert after == before and set(after) == set(TASKS)
    assert bank.task_ids == list(TASKS) and bank.active.experts[0] is bank.active.experts[2]
    alone = tmp_path / "alone" / "experts"  # the merged expert under one task's name, asked for everything
    alone.mkdir(parents=True)
    shutil.copyfile(merged / "experts" / "expert_merged_0.pt", alone / "expert_task_0.pt")
    assert ask(alone, merged / "anchors")[1] == texts


def test_an_export_says_that_tasks_share_weights(
    repo_root: Path, trained: Path, merged: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    (folder / "all").parent.mkdir()
    shutil.copytree(merged / "experts", folder / "all")
    shutil.copytree(merged / "anchors", folder / "anchors")
    with caplog.at_level(logging.WARNING):
        export(repo_root, folder, tmp_path / "peft", "--base_model", "owner/llm")
    assert "expert_merged_0.pt is merged: tasks [0, 2] get an adapter each" in caplog.text
    (first, one), (second, other) = (
        read_adapter(tmp_path / "peft" / name) for name in ("task_0_come", "task_2_where")
    )
    assert (first.header.task_id, second.header.task_id) == (0, 2)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_command_says_what_it_joined(
    trained: Path, merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [trained / "all", "--anchors", trained / "anchors", "--output", tmp_path / "two"]
    arguments = [*map(str, flags), "--keep", "1", "--method", "ties"]
    merge.main(merge.parser().parse_args(arguments))
    said = capsys.readouterr().out
    assert "joined 0 and 2 at" in said and said.strip().endswith("experts: 0+2")
    one, two = (stored_expert(f / "experts", 2).read_bytes() for f in (merged, tmp_path / "two"))
    assert one != two, "ties is not svd"
    with pytest.raises(ValueError, match="give 1 to 2"):
        merge.main(merge.parser().parse_args([*map(str, flags[:-1]), str(tmp_path / "none"), "--keep", "3"]))


def test_partitions_are_all_there_are() -> None:
    assert [len(set(curve.partitions(range(n)))) for n in range(6)] == [1, 1, 2, 5, 15, 52]  # Bell numbers
    assert ((0, 2), (1, 3)) in set(curve.partitions(range(4)))


def test_the_curve(
    repo_root: Path, backbone: Backbone, inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = repo_root / "data_sample"
    tasks = []
    bank = ExpertBank(backbone.llm, ExpertConfig(rank=2, tokens="answer"), backbone.identity)
    for task, name in enumerate(("Come_From", "Where")):
        items = json.loads((sample / f"val_{name}.json").read_text())[:2]
        (tmp_path / f"{name}.json").write_text(json.dumps(items))
        tasks.append({"name": name, "train": f"{name}.json", "val": f"{name}.json", "test": f"{name}.json"})
        bank.add(task, generator=torch.Generator().manual_seed(task))
        bank.save(task, tmp_path / "made" / "experts" / f"expert_task_{task}.pt")
    bank.detach()
    content = {"name": "Two", "media_root": str(sample), "tasks": tasks}
    (tmp_path / "two.json").write_text(json.dumps(content))
    for task in read_benchmark(tmp_path / "two.json").tasks:
        samples = read_samples(task.val, media_root=sample)
        inputs.encode(samples)
        made = inputs.anchor(task.id, samples)
        path = tmp_path / "made" / "anchors" / f"anchor_task_{task.id}.pt"
        save_anchor(made, path)
    flags = ["--benchmark", tmp_path / "two.json", "--output", tmp_path / "made", "--out", tmp_path / "out"]
    flags += ["--checkpoints", repo_root / "checkpoints", "--feature_store", tmp_path / "store", "--quiet"]
    flags += ["--device", "cpu", "--jobs", "1", "--methods", "svd", "average", "--all_groupings"]
    curve.main(curve.make_parser().parse_args(list(map(str, flags))))
    table = json.loads((tmp_path / "out" / "curve_val.json").read_text())
    assert [(row["method"], row["groups"]) for row in table["rows"]] == [
        ("unmerged", [[0], [1]]),
        ("svd", [[0, 1]]),
        ("average", [[0, 1]]),
    ]
    assert table["rows"][0]["difference"] == 0 and table["n"] == 4 and "unmerged" in capsys.readouterr().out
