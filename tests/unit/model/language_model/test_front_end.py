"""The backbone without its LLM: the same features and embeddings, nothing of the layers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.language_model.backbone import BackbonePaths, load_backbone
from model.language_model.front_end import EMBEDDING, load_front_end, save_front_end


def paths(root: Path, base: Path | None = None) -> BackbonePaths:
    return BackbonePaths(base or root / "base", root / "clip", root / "beats.pt")


def test_it_is_part_of_the_backbone(backbone_folder: Path, tmp_path: Path) -> None:
    whole = load_backbone(paths(backbone_folder))
    identity, digest = save_front_end(backbone_folder / "base", tmp_path / "front")
    assert identity == whole.identity
    stored = load_file(tmp_path / "front" / "model.safetensors")
    assert EMBEDDING in stored and not any(".layers." in name and "aligner" not in name for name in stored)
    for base in (tmp_path / "front", None):  # of its own folder, and of the whole base
        front = load_front_end(paths(backbone_folder, base), identity, digest)
        assert front.identity == identity
        assert torch.equal(front.llm.get_input_embeddings().weight, whole.llm.get_input_embeddings().weight)
        assert front.encoder.vision_fingerprint == whole.encoder.vision_fingerprint
        assert front.encoder.audio_fingerprint == whole.encoder.audio_fingerprint
        assert front.tokenizer.get_vocab() == whole.tokenizer.get_vocab()
        with pytest.raises(RuntimeError, match="holds no LLM"):
            front.llm(torch.zeros(1, 1, dtype=torch.long))


def test_other_weights_are_refused(backbone_folder: Path, tmp_path: Path) -> None:
    identity, digest = save_front_end(backbone_folder / "base", tmp_path)
    with pytest.raises(ValueError, match="not those that were exported"):
        load_front_end(paths(backbone_folder, tmp_path), identity, "0" * 64)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no weights found"):
        load_front_end(paths(backbone_folder, tmp_path), identity, digest)


def test_qformer_sizes_travel_along(backbone_folder: Path, tmp_path: Path) -> None:
    config = json.loads((backbone_folder / "base" / "config.json").read_text())
    sizes = config.pop("audio_qformer")
    base = tmp_path / "base"
    base.mkdir()
    for path in (backbone_folder / "base").iterdir():
        (base / path.name).symlink_to(path)
    (base / "config.json").unlink()
    (base / "config.json").write_text(json.dumps(config))
    identity, digest = save_front_end(base, tmp_path / "front", sizes)
    assert json.loads((tmp_path / "front" / "config.json").read_text())["audio_qformer"] == sizes
    load_front_end(paths(backbone_folder, tmp_path / "front"), identity, digest)


def test_a_base_without_its_parts_is_refused(tmp_path: Path) -> None:
    torch.save({"model.layers.0.mlp.up_proj.weight": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"expected model\.embed_tokens\.weight"):
        save_front_end(tmp_path, tmp_path / "front")
