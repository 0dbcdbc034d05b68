"""What files and folders are, whatever they are called."""

import json
from pathlib import Path

import pytest
import torch

from model.recognition import recognise


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def config(path: Path, **content: object) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("AVQACL-MoE-base", "base"),
        ("clip-vit-large-patch14-336", "vision"),
        ("BEATs_iter3_plus_AS2M.pt", "audio"),
        ("README.md", "other"),
    ],
)
def test_the_parts_of_the_tiny_backbone(repo_root: Path, name: str, kind: str) -> None:
    assert recognise(repo_root / "checkpoints" / "tiny" / name).kind == kind


def test_folders(repo_root: Path, tmp_path: Path) -> None:
    assert recognise(repo_root / "checkpoints" / "tiny").kind == "checkpoints"
    assert recognise(config(tmp_path / "a", model_type="gpt2")).what.startswith("a model of type 'gpt2'")
    (tmp_path / "b").mkdir()
    assert recognise(tmp_path / "b").what == "an empty folder"
    (tmp_path / "b" / "pytorch_model.bin").touch()
    assert recognise(tmp_path / "b").what == "weights without their config.json"
    (tmp_path / "c" / "experts").mkdir(parents=True)
    (tmp_path / "c" / "experts" / "expert_task_0.pt").touch()
    assert recognise(tmp_path / "c").kind == "experts"
    (tmp_path / "a" / "config.json").write_text("{")
    assert "config.json cannot be used: not valid JSON" in recognise(tmp_path / "a").what


def test_kinds_of_beats(tmp_path: Path) -> None:
    cfg = {"encoder_layers": 12, "encoder_embed_dim": 768}
    plain = save(tmp_path / "1.pt", {"cfg": {**cfg, "finetuned_model": False}, "model": {}})
    assert recognise(plain).what == "pre-trained BEATs (12 x 768)"
    tuned = save(tmp_path / "2.pt", {"cfg": {**cfg, "finetuned_model": True}, "model": {}})
    assert recognise(tuned).what == "fine-tuned BEATs with a classifier (12 x 768)"
    tokens = save(tmp_path / "3.pt", {"cfg": cfg, "model": {"quantize.embedding.weight": torch.zeros(2)}})
    assert (recognise(tokens).kind, "tokenizer" in recognise(tokens).what) == ("other", True)


def test_experts_anchors_and_strangers(tmp_path: Path) -> None:
    key = "model.layers.0.mlp.up_proj.weight"
    assert recognise(save(tmp_path / "x.pt", {key: torch.zeros(2, 2)})).what == "an expert"
    own = {key.replace(".weight", ".lora_A.weight"): torch.zeros(2, 2), "expert": {"task_id": 3}}
    assert recognise(save(tmp_path / "y.pt", own)).what == "the expert of task 3"
    anchor = {"text": torch.zeros(3), "audio": torch.zeros(4)}
    assert recognise(save(tmp_path / "z.pt", anchor)).what == "an anchor (audio, text)"
    for content in ({}, [1], {"text": 3}, {"a.weight": torch.zeros(1)}):
        assert recognise(save(tmp_path / "s.pt", content)).kind == "other"
    (tmp_path / "x.pt.part").touch()
    assert recognise(tmp_path / "x.pt.part").kind == "partial"
