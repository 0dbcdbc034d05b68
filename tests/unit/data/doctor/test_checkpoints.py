from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data.doctor.checkpoints import PARTS, check_backbone, find_parts
from data.doctor.findings import Level, Section
from model.encoders.beats import BEATs, BEATsConfig, save_beats
from model.language_model.backbone import AUDIO, BASE, VISION, Backbone


def examine(root: Path) -> tuple[Section, Backbone | None]:
    section = Section("Backbone", root)
    backbone, _ = check_backbone(section, find_parts(section, root), None, torch.float32)
    return section, backbone


def problems(section: Section) -> dict[str, str]:
    """Name of the file or folder -> what is said."""
    return {Path(f.where).name: f.message for f in section.findings if f.level == Level.PROBLEM}


def test_a_whole_backbone(checkpoints: Path, backbone: Backbone) -> None:
    section, found = examine(checkpoints)
    assert found is not None and found.identity == backbone.identity
    assert {p.device.type for p in found.llm.parameters()} == {"meta"}
    assert [f.level for f in section.findings if Path(f.where).name in (BASE, VISION, AUDIO)] == [
        Level.OK
    ] * 3
    assert not problems(section)


def test_the_embedded_one_is_used_where_no_other_is(checkpoints: Path, tmp_path: Path) -> None:
    root = tmp_path / "outer"
    root.mkdir()
    checkpoints.rename(root / "tiny")
    section, found = examine(root)
    assert found is not None and "is used" in section.findings[0].message
    shutil.copytree(root / "tiny" / BASE, root / "llava7b")
    section, _ = examine(root)
    assert problems(section).keys() == {"llava7b", VISION, AUDIO}, "a renamed part stops the silent choice"


def test_renamed_missing_and_unknown_parts(checkpoints: Path) -> None:
    (checkpoints / BASE).rename(checkpoints / "AVQACL-MoE")
    (checkpoints / AUDIO).unlink()
    torch.save({"a": 1}, checkpoints / "extra.pt")
    section, found = examine(checkpoints)
    assert found is None
    assert problems(section) == {
        "AVQACL-MoE": f"is a base LLM folder (7 x 192) under another name; rename it to {BASE}",
        AUDIO: "missing: a BEATs encoder file",
    }
    assert "not used" in next(f.message for f in section.findings if f.where.endswith("extra.pt"))


def test_nothing_is_guessed_among_several(checkpoints: Path) -> None:
    (checkpoints / AUDIO).rename(checkpoints / "b1.pt")
    shutil.copy(checkpoints / "b1.pt", checkpoints / "b2.pt")
    section = Section("x")
    assert set(find_parts(section, checkpoints)) == {"base", "vision"}
    assert "several could be it: b1.pt, b2.pt" in problems(section)[AUDIO]


def test_parts_in_each_others_place(checkpoints: Path) -> None:
    (checkpoints / BASE).rename(checkpoints / "x")
    (checkpoints / VISION).rename(checkpoints / BASE)
    (checkpoints / "x").rename(checkpoints / VISION)
    found = problems(examine(checkpoints)[0])
    assert found[BASE].startswith("a CLIP folder") and "expected a base LLM folder" in found[BASE]
    assert found[VISION].startswith("a base LLM folder") and "expected a CLIP folder" in found[VISION]


def test_every_damaged_file_has_its_line(
    checkpoints: Path, payload: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = checkpoints / BASE
    first = base / "pytorch_model-00001-of-00002.bin"
    first.write_bytes(first.read_bytes()[:10000])
    (base / "pytorch_model-00002-of-00002.bin").rename(base / "pytorch_model-00002-of-00002.bin.part")
    payload(base / "training_args.bin")
    (base / "tokenizer.model").write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 9\n")
    (checkpoints / VISION / "preprocessor_config.json").write_text("<html>")
    (checkpoints / AUDIO).write_bytes(b"")
    section, found = examine(checkpoints)
    assert found is None and not Path("must_not_exist").exists()
    said = problems(section)
    assert said.keys() == {
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
        "tokenizer.model",
        "preprocessor_config.json",
        AUDIO,
    }
    assert "truncated" in said["pytorch_model-00001-of-00002.bin"]
    assert "index.json names it" in said["pytorch_model-00002-of-00002.bin"]
    others = {Path(f.where).name: f for f in section.findings if f.level < Level.PROBLEM}
    assert "carrying code" in others["training_args.bin"].message
    assert others["pytorch_model-00002-of-00002.bin.part"].level == Level.WARNING


def test_parts_that_do_not_fit(checkpoints: Path) -> None:
    small = BEATsConfig(
        encoder_layers=1, encoder_embed_dim=32, encoder_attention_heads=2, embed_dim=8, conv_pos=4
    )
    save_beats(checkpoints / AUDIO, BEATs(small))
    assert "features are 32 wide" in problems(examine(checkpoints)[0])[AUDIO]
    config = json.loads((checkpoints / BASE / "config.json").read_text())
    (checkpoints / BASE / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 9}))
    (checkpoints / AUDIO).unlink()
    section, found = examine(checkpoints)
    assert found is None and AUDIO in problems(section)


def test_a_folder_that_cannot_be_identified_has_its_files_looked_at_too(checkpoints: Path) -> None:
    (checkpoints / BASE / "config.json").write_text("{")
    (checkpoints / BASE / "tokenizer.model").write_bytes(b"")
    section, found = examine(checkpoints)
    assert found is None
    assert "config.json cannot be used: not valid JSON" in problems(section)[BASE]
    assert "empty" in problems(section)["tokenizer.model"]


def test_weights_of_another_size(checkpoints: Path) -> None:
    path = checkpoints / BASE / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 300}))
    assert "of other shape" in problems(examine(checkpoints)[0])[BASE]


def test_fine_tuned_beats_are_said(checkpoints: Path) -> None:
    content = torch.load(checkpoints / AUDIO, weights_only=True)
    content["cfg"]["finetuned_model"] = True
    content["model"]["predictor.weight"] = torch.zeros(2, 2)
    torch.save(content, checkpoints / AUDIO)
    section, found = examine(checkpoints)
    assert found is not None
    [warning] = [f for f in section.findings if f.level == Level.WARNING]
    assert warning.message.startswith("fine-tuned BEATs")


def test_a_part_given_in_place_of_the_folder(checkpoints: Path, tmp_path: Path) -> None:
    section = Section("x")
    assert find_parts(section, checkpoints / BASE) == find_parts(section, tmp_path / "none") == {}
    assert section.count(Level.PROBLEM) == 2
    assert PARTS == ("base", "vision", "audio")
