"""scripts/export_peft.py on the tiny backbone: folder, hub, front end, and the way back."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import CommitOperationAdd, ModelCard, snapshot_download
from torch import Tensor
from transformers import LlamaForCausalLM

from data.benchmark import read_benchmark
from data.inputs import Inputs
from data.samples import read_samples
from evaluation.serving import Front
from model.language_model.backbone import AUDIO, VISION, Backbone
from model.language_model.splice import splice
from model.moe.adapter_router import AdapterRouter, Deployment
from model.moe.expert_files import inspect_expert
from model.moe.experts import ExpertBank, ExpertConfig
from model.moe.files import read_tensor_file, write_tensor_file
from model.moe.peft_adapters import CONFIG, WEIGHTS, read_adapter
from model.moe.routing import Router, RouterConfig
from tests.unit.scripts.exporting import TASKS, export, run


@pytest.fixture(scope="module")
def pulled(peft_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as `snapshot_download` finds it in the hub's cache: links to blobs."""
    cache, commit = tmp_path_factory.mktemp("hub"), "0" * 40
    stored = cache / "models--owner--experts"
    for number, path in enumerate(sorted(p for p in peft_folder.rglob("*") if p.is_file())):
        blob = stored / "blobs" / str(number)
        link = stored / "snapshots" / commit / path.relative_to(peft_folder)
        for folder in (blob.parent, link.parent, stored / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        link.symlink_to(blob)
    (stored / "refs" / "main").write_text(commit)
    return Path(snapshot_download("owner/experts", cache_dir=cache, local_files_only=True))


@pytest.fixture(scope="module")
def front(repo_root: Path, pulled: Path) -> Front:
    tiny = repo_root / "checkpoints" / "tiny"

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the front loads an LLM")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaForCausalLM, "__init__", never)
        front = Front.load(pulled, vision=tiny / VISION, audio=tiny / AUDIO)
    return front


def test_the_hub_takes_the_folder(peft_folder: Path) -> None:
    files = sorted(p.relative_to(peft_folder).as_posix() for p in peft_folder.rglob("*") if p.is_file())
    assert [name for name in files if "/" not in name] == ["README.md", "routing.json"]
    for task, name in ((0, "task_0_come"), (2, "task_2_where")):
        assert {f"{name}/adapter_config.json", f"{name}/adapter_model.safetensors"} <= set(files)
        assert {f"anchors/anchor_task_{task}.{kind}" for kind in ("safetensors", "stats.safetensors")} <= set(
            files
        )
    for name in files:
        CommitOperationAdd(name, peft_folder / name)  # checks the path
        assert not name.endswith((".pt", ".bin")) and (peft_folder / name).stat().st_mode & 0o044
    card = ModelCard.load(peft_folder / "README.md")
    about = card.data.to_dict()
    assert about["license"] == "mit" and about["library_name"] == "peft" and "lora" in about["tags"]
    assert about["base_model"] == "owner/llm"
    assert "Measured" not in card.text and "Warning" not in card.text and "task_2_where" in card.text
    assert str(peft_folder.parent) not in card.content


def test_what_is_pulled_is_what_was_pushed(
    repo_root: Path, backbone: Backbone, trained: Path, pulled: Path, tmp_path: Path
) -> None:
    for task, name in AdapterRouter.load(pulled).deployment.adapters.items():
        run(repo_root, "--read", pulled / name, "--output", tmp_path / f"expert_task_{task}.pt")
        original = trained / "all" / f"expert_task_{task}.pt"
        assert (tmp_path / original.name).read_bytes() == original.read_bytes()


def test_the_front_equals_the_whole_backbone(
    repo_root: Path, backbone: Backbone, inputs: Inputs, front: Front
) -> None:
    tests = [read_benchmark(repo_root / "data_sample" / "avqa.json").tasks[task].test for task in TASKS]
    samples = [sample for path in tests if path is not None for sample in read_samples(path)[3:6]]
    inputs.encode(samples)
    requests = front.requests(samples)
    routing = Router(front.router.router.anchors, RouterConfig()).route(inputs.routing(samples))
    names = front.router.deployment.adapters
    assert [request.adapter for request in requests] == [names[task] for task in routing.task_ids]
    assert {request.adapter for request in requests} == set(names.values())
    spliced = splice(inputs.batch(samples, with_answers=False), backbone.llm.get_input_embeddings(), "right")
    for row, request in enumerate(requests):
        assert torch.equal(request.prompt_embeds, spliced.embeds[row][spliced.mask[row]])
        assert list(request.scores.values()) == routing.scores[row].tolist()


def test_the_front_refuses_other_towers_and_weights(
    repo_root: Path, peft_folder: Path, tmp_path: Path
) -> None:
    tiny = repo_root / "checkpoints" / "tiny"
    for key, message in (
        ("vision", "another vision tower"),
        ("audio", "another audio tower"),
        ("front_end", "not those that were exported"),
    ):
        changed = tmp_path / key
        shutil.copytree(peft_folder, changed)
        content = json.loads((changed / "routing.json").read_text())
        (changed / "routing.json").write_text(json.dumps({**content, key: "0" * 64}))
        with pytest.raises(ValueError, match=message):
            Front.load(changed, vision=tiny / VISION, audio=tiny / AUDIO)


def test_scope_answer_leaves_only_with_a_warning(
    repo_root: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "peft"
    with pytest.raises(
        ValueError, match=r"tasks \[0, 2\] were trained to act on the last prompt token.*any_tokens"
    ):
        export(repo_root, trained, output, "--base_model", "./llm", tokens="answer")
    assert list(tmp_path.iterdir()) == []
    with caplog.at_level(logging.WARNING):
        export(
            repo_root,
            trained,
            output,
            "--base_model",
            "./llm",
            "--any_tokens",
            "--every_layer",
            tokens="answer",
        )
    assert "other logits" in caplog.text
    card = ModelCard.load(output / "README.md")
    assert "**Warning.**" in card.text and "base_model" not in card.data.to_dict()  # no id on the hub
    file, _ = read_adapter(output / "task_0_come")
    assert file.header.tokens == "answer" and file.layers == (0, 2, 4, 6)
    assert json.loads((output / "task_0_come" / CONFIG).read_text())["layers_to_transform"] == list(range(7))
    for flags, tokens in (([], "answer"), (["--expert_tokens", "all"], "all")):
        run(repo_root, "--read", output / "task_0_come", "--output", tmp_path / "expert_task_0.pt", *flags)
        assert inspect_expert(tmp_path / "expert_task_0.pt").header.tokens == tokens


def test_measurements_come_from_their_summary_only(
    repo_root: Path, peft_folder: Path, trained: Path, tmp_path: Path
) -> None:
    summary = json.loads((repo_root / "docs" / "results" / "data_sample.json").read_text())
    made = Deployment.load(peft_folder)
    summary["tasks"] = ["Come", "Where"]
    summary["provenance"]["base_identity"] = made.base_identity
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(summary))
    flags = ["--base_model", "owner/llm", "--summary", path]
    export(repo_root, trained, tmp_path / "peft", *flags)
    card = (tmp_path / "peft" / "README.md").read_text()
    assert "## Measured" in card and f"{summary['methods']['anchor_moe']['MA']:.2f}" in card
    assert "(LLM loaded with attn_implementation `blocks`)" in card
    with pytest.raises(ValueError, match="router is"):
        export(repo_root, trained, tmp_path / "other", *flags, "--metric", "raw")
    path.write_text(json.dumps({**summary, "tasks": ["Come"]}))
    with pytest.raises(ValueError, match="tasks is 1, expected 2"):
        export(repo_root, trained, tmp_path / "other", *flags)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["peft", "summary.json"]


def test_what_does_not_fit_is_refused(
    repo_root: Path, backbone: Backbone, trained: Path, work: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="output/peft: exists"):
        export(repo_root, trained, work / "output" / "peft", "--base_model", "owner/llm")
    with pytest.raises(ValueError, match="needs --anchors, and --base_model or --save_llm"):
        export(repo_root, trained, out)
    with pytest.raises(ValueError, match="has text feature question; add --text_feature question"):
        export(repo_root, trained, out, "--base_model", "owner/llm", "--text_feature", "prompt")
    copy = tmp_path / "trained"
    shutil.copytree(trained, copy)
    record = copy / "all" / "expert_task_2.run.json"
    record.write_text(json.dumps({"identity": {"inputs": {"num_frames": 4}}}))
    with pytest.raises(ValueError, match=r"made with 4 frames per clip; add --num_frames 4"):
        export(repo_root, copy, out, "--base_model", "owner/llm")
    record.unlink()
    bank = ExpertBank(backbone.llm, ExpertConfig("mlp"), backbone.identity)
    bank.add(2)
    bank.save(2, copy / "all" / "expert_task_2.pt")
    bank.detach()
    with pytest.raises(ValueError, match="expert of task 2: a full-MLP expert is no adapter"):
        export(repo_root, copy, out, "--base_model", "owner/llm")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["trained"]


def test_a_foreign_adapter_needs_a_task(
    repo_root: Path, backbone: Backbone, peft_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(peft_folder / "task_0_come", adapter)
    weights = read_tensor_file(adapter / WEIGHTS)
    write_tensor_file(adapter / WEIGHTS, {k: v.clone() for k, v in weights.items() if isinstance(v, Tensor)})
    target = tmp_path / "expert_task_5.safetensors"
    with pytest.raises(ValueError, match="give --task_id"):
        run(repo_root, "--read", adapter, "--output", target)
    run(repo_root, "--read", adapter, "--output", target, "--task_id", "5")
    assert "names no backbone" in caplog.text
    header = inspect_expert(target).header
    assert (header.task_id, header.base_identity, header.alpha) == (5, backbone.identity, 6.0)
    wide = {k: torch.zeros(v.shape[0], v.shape[1] + 1) for k, v in weights.items() if isinstance(v, Tensor)}
    wide = {k: v if "lora_A" in k else v[:, :-1] for k, v in wide.items()}
    write_tensor_file(adapter / WEIGHTS, wide)
    with pytest.raises(ValueError, match="has shape .* expected"):
        run(repo_root, "--read", adapter, "--output", target, "--task_id", "5")
