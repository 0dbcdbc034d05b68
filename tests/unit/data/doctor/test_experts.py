from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data.benchmark import Task
from data.doctor.experts import check_experts
from data.doctor.findings import Level, Section
from data.expert_map import write_expert_map
from data.files import sha256_file
from model.language_model.backbone import Backbone

TASKS = tuple(Task(i, f"t{i}", None, None, None, f"t{i}") for i in range(2))


def examine(output: Any, backbone: Backbone | None, tasks: Any = TASKS, text: str = "question") -> Section:
    section = Section("Experts", output.folder)
    check_experts(section, output.folder, backbone, tasks, text)
    return section


def said(section: Section, level: Level = Level.PROBLEM) -> dict[str, str]:
    return {Path(f.where).name: f.message for f in section.findings if f.level == level}


def test_good_pairs(output: Any, backbone: Backbone) -> None:
    section = examine(output, backbone)
    [found] = section.findings
    assert found.level == Level.OK and found.message.startswith(
        "tasks 0 to 1: LoRA rank 2, alpha 32 on layers 0,"
    )
    assert section.facts["published_anchors"] is False


def test_halves_gaps_and_tasks_beyond(output: Any, backbone: Backbone) -> None:
    output.anchor(3)
    output.expert(4)
    (output.folder / "anchors" / "anchor_task_0.pt").unlink()
    section = examine(output, backbone)
    problems = said(section)
    assert "expert of task 0 is there" in problems["anchor_task_0.pt"]
    assert "anchor of task 3 is there" in problems["expert_task_3.pt"]
    assert "anchor_task_4.pt" in problems
    assert problems["experts"] == "task 2 has neither expert nor anchor, but tasks 0 to 1, 3 to 4 are there"
    assert said(section, Level.WARNING)["experts"].startswith("tasks 3 to 4 are not in the benchmark")


def test_merged_experts(output: Any, backbone: Backbone) -> None:
    folder = output.folder / "experts"
    path = output.expert(1)
    content = torch.load(path, weights_only=True)
    content["expert"]["task_id"] = None
    for task in (0, 1):
        (folder / f"expert_task_{task}.pt").unlink()
    torch.save(content, folder / "expert_merged_0.pt")
    write_expert_map(folder, dict.fromkeys((0, 1), "expert_merged_0.pt"))
    section = examine(output, backbone)
    [found] = section.findings
    assert found.level == Level.OK and found.message.endswith("each with its anchor, merged into 1")
    output.expert(1)
    assert "task 1 has an expert of its own and shares" in " ".join(said(examine(output, backbone)).values())
    (folder / "experts.json").write_text("{")
    assert "not readable as JSON" in " ".join(said(examine(output, backbone)).values())


def test_experts_on_the_attention(output: Any, backbone: Backbone) -> None:
    for task in (0, 1):
        output.expert(task, projections=("q_proj", "o_proj", "up_proj"))
    [found] = examine(output, backbone).findings
    assert found.level == Level.OK and "(q_proj, o_proj, up_proj)" in found.message


def test_a_task_of_the_benchmark_without_files(output: Any, backbone: Backbone) -> None:
    tasks = (*TASKS, Task(2, "t2", None, None, None, "t2"))
    assert said(examine(output, backbone, tasks))["experts"].endswith("the benchmark has this task")


def test_damaged_files_and_code(
    output: Any,
    backbone: Backbone,
    payload: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    experts, anchors = output.folder / "experts", output.folder / "anchors"
    payload(experts / "expert_task_0.pt")
    cut = experts / "expert_task_1.pt"
    cut.write_bytes(cut.read_bytes()[:-100])
    (anchors / "anchor_task_0.pt").write_bytes(b"")
    stats = anchors / "anchor_task_1.stats.safetensors"
    stats.write_bytes(stats.read_bytes()[:-8])
    (experts / ".expert_task_2.pt.tmp").write_bytes(b"PK")
    section = examine(output, backbone)
    problems = said(section)
    assert "carrying code" in problems["expert_task_0.pt"] and not Path("must_not_exist").exists()
    assert "truncated" in problems["expert_task_1.pt"]
    assert "empty" in problems["anchor_task_0.pt"]
    assert "truncated" in problems["anchor_task_1.stats.safetensors"]
    assert "half-written" in said(section, Level.WARNING)[".expert_task_2.pt.tmp"]


def test_experts_for_another_model(output: Any, backbone: Backbone) -> None:
    output.expert(0, identity="0" * 64)
    path = output.expert(1)
    content = torch.load(path, weights_only=True)
    key = next(key for key in content if key.endswith("lora_A.weight"))
    content[key] = torch.zeros(2, 64)
    torch.save(content, path)
    output.anchor(1, text=64)
    problems = said(examine(output, backbone))
    assert problems["expert_task_0.pt"].startswith("made for base 0000000000000000, the backbone loaded is")
    assert "has shape (2, 64), expected (2, 192)" in problems["expert_task_1.pt"]
    assert "text is 64 wide, this backbone's is 192" in problems["anchor_task_1.pt"]


def test_another_layer_count(output: Any, backbone: Backbone) -> None:
    path = output.folder / "experts" / "expert_task_0.pt"
    content = torch.load(path, weights_only=True)
    torch.save({key.replace("layers.0.", "layers.31."): value for key, value in content.items()}, path)
    assert "31" in said(examine(output, backbone))["expert_task_0.pt"]


def test_renamed_and_swapped_files(output: Any, backbone: Backbone) -> None:
    experts = output.folder / "experts"
    (experts / "expert_task_1.pt").rename(experts / "expert_task_01.pt")
    (experts / "expert_task_0.pt").rename(experts / "expert_task_1.pt")
    section = examine(output, backbone)
    assert "the file was renamed or copied" in said(section)["expert_task_1.pt"]
    assert "expert_task_0.pt" in said(section)
    assert said(section, Level.WARNING)["expert_task_01.pt"].startswith(
        "is the expert of task 1 under a name"
    )


def test_experts_of_different_make(output: Any, backbone: Backbone) -> None:
    output.expert(1, rank=4)
    assert "different make" in said(examine(output, backbone))["experts"]


def test_anchors_without_statistics_and_other_text_features(output: Any, backbone: Backbone) -> None:
    assert (
        "text feature question, but --text_feature is prompt"
        in said(examine(output, backbone, text="prompt"))["anchors"]
    )
    for path in output.folder.glob("anchors/*.stats.safetensors"):
        path.unlink()
    section = examine(output, backbone)
    assert not said(section) and section.facts["published_anchors"] is True
    assert "routes with the raw metric" in section.merged()[0].message


def test_records_state_hashes_and_data(output: Any, backbone: Backbone, tmp_path: Path) -> None:
    train = tmp_path / "train.json"
    train.write_text("[]")
    for task in (0, 1):
        names = [f"experts/expert_task_{task}.pt", f"anchors/anchor_task_{task}.pt"]
        hashes = {Path(name).name: sha256_file(output.folder / name) for name in names}
        data = {"train.json": sha256_file(train) if task == 0 else "0" * 64}
        record = {"files": hashes, "identity": {"task_id": task, "data": data}}
        path = output.folder / "experts" / f"expert_task_{task}.run.json"
        path.write_text(json.dumps(record))
    tasks = tuple(Task(i, f"t{i}", train, None, None, f"t{i}") for i in range(2))
    section = Section("x")
    files, known = check_experts(section, output.folder, backbone, tasks, "question")
    assert len(files) == 6 and len(known) == 4
    assert {reference.sha256 for reference in known.values()} <= {sha256_file(path) for path in files}
    assert said(section, Level.WARNING).keys() == {"expert_task_1.pt"}


def test_no_experts_at_all(output: Any, backbone: Backbone, tmp_path: Path) -> None:
    section = Section("x")
    assert check_experts(section, tmp_path / "none", backbone, TASKS, "question") == ([], {})
    (tmp_path / "empty").mkdir()
    check_experts(section, tmp_path / "empty", backbone, TASKS, "question")
    assert section.count(Level.PROBLEM) == 3


def test_without_a_backbone_files_and_pairs_are_checked(output: Any) -> None:
    (output.folder / "anchors" / "anchor_task_0.pt").unlink()
    section = examine(output, None)
    assert said(section).keys() == {"anchor_task_0.pt"}
    assert "not checked whether they fit" in section.findings[0].message
