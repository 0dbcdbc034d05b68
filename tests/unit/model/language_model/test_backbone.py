"""Loading a backbone in the published layout: what is found, ignored, refused."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.language_model.backbone import (
    AUDIO,
    BASE,
    VISION,
    Backbone,
    BackbonePaths,
    find_checkpoints,
    load_backbone,
)
from model.tensor_files import read_weights

INDEX = "pytorch_model.bin.index.json"


def paths(root: Path) -> BackbonePaths:
    return BackbonePaths(root / "base", root / "clip", root / "beats.pt")


@pytest.fixture
def folder(backbone_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(backbone_folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def backbone(backbone_folder: Path) -> Backbone:
    return load_backbone(paths(backbone_folder))


def rewrite(root: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Store the base folder's tensors again as one file after `change`."""
    tensors = {k: v.clone() for k, v in read_weights(root / "base").items()}
    change(tensors)
    for old in (root / "base").glob("pytorch_model*"):
        old.unlink()
    torch.save(tensors, root / "base" / "pytorch_model.bin")


def configure(root: Path, **changes: Any) -> None:
    path = root / "base" / "config.json"
    config = {k: v for k, v in (json.loads(path.read_text()) | changes).items() if v is not ...}
    path.write_text(json.dumps(config))


def test_everything_is_loaded_as_stored(backbone: Backbone, backbone_folder: Path) -> None:
    stored = read_weights(backbone_folder / "base")
    loaded = dict(backbone.llm.state_dict())
    loaded |= {f"model.mm_projector.{k}": v for k, v in backbone.encoder.projector.state_dict().items()}
    loaded |= {f"model.mm_audio_aligner.{k}": v for k, v in backbone.encoder.aligner.state_dict().items()}
    assert loaded.keys() == {k for k in stored if "inv_freq" not in k}
    for key, value in loaded.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, stored[key].float()), key
    for module in (backbone.llm, backbone.encoder):
        assert not any(p.requires_grad for p in module.parameters())
        assert not any(m.training for m in module.modules())


def test_rotary_frequencies_are_recomputed(backbone: Backbone) -> None:
    expected = 10000.0 ** -(torch.arange(0, 8, 2) / 8)
    torch.testing.assert_close(backbone.llm.model.rotary_emb.inv_freq, expected)


def test_sizes_come_from_the_files(backbone: Backbone) -> None:
    encoder = backbone.encoder
    assert encoder.audio.window_samples == 8000
    assert encoder.aligner.query_tokens.shape == (1, 3, 12)
    assert (encoder.vision.width, encoder.audio.width, encoder.llm_width) == (8, 12, 16)
    assert backbone.llm.config.num_key_value_heads == 1
    assert backbone.tokenizer.eos_token_id == 2
    assert "barking" in backbone.tokenizer.decode(backbone.tokenizer.encode("a dog is barking"))


def test_identity_is_that_of_the_weights(backbone: Backbone, folder: Path) -> None:
    tensors = {k: v.clone().float() for k, v in read_weights(folder / "base").items() if "inv_freq" not in k}
    for old in (folder / "base").glob("pytorch_model*"):
        old.unlink()
    save_file(tensors, folder / "base" / "model.safetensors")
    assert load_backbone(paths(folder)).identity == backbone.identity, "container and dtype must not matter"
    assert load_backbone(paths(folder), dtype=torch.bfloat16).identity == backbone.identity
    tensors["model.mm_projector.0.bias"][0] += 1
    save_file(tensors, folder / "base" / "model.safetensors")
    assert load_backbone(paths(folder)).identity != backbone.identity


def test_shapes_only_checks_and_identifies_all_but_holds_no_llm(backbone: Backbone, folder: Path) -> None:
    shapes = load_backbone(paths(folder), shapes_only=True)
    assert shapes.identity == backbone.identity
    assert {p.device.type for p in shapes.llm.parameters()} == {"meta"}
    assert {k: v.shape for k, v in shapes.llm.state_dict().items()} == {
        k: v.shape for k, v in backbone.llm.state_dict().items()
    }
    assert all(map(torch.equal, shapes.encoder.parameters(), backbone.encoder.parameters()))
    rewrite(folder, lambda t: t.update({"model.norm.weight": torch.zeros(5)}))
    with pytest.raises(ValueError, match=r"of other shape.*model\.norm\.weight"):
        load_backbone(paths(folder), shapes_only=True)


def test_a_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "base" / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"tokenizer\.model: no readable SentencePiece model"):
        load_backbone(paths(folder), shapes_only=True)


def test_only_the_llm_takes_the_dtype(folder: Path) -> None:
    loaded = load_backbone(paths(folder), dtype=torch.bfloat16, attn_implementation="eager")
    assert {p.dtype for p in loaded.llm.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in loaded.encoder.parameters()} == {torch.float32}
    assert loaded.llm.config._attn_implementation == "eager"


def test_q_former_sizes_from_the_argument_or_by_default(folder: Path) -> None:
    sizes = json.loads((folder / "base" / "config.json").read_text())["audio_qformer"]
    configure(folder, audio_qformer=...)
    assert load_backbone(paths(folder), qformer=sizes).encoder.aligner.config.num_hidden_layers == 2
    with pytest.raises(ValueError, match="12 wide.*reads 768; set audio_qformer"):
        load_backbone(paths(folder))
    with pytest.raises(ValueError, match=r"(?s)mm_audio_aligner.*layer\.2"):
        load_backbone(paths(folder), qformer={**sizes, "num_hidden_layers": 3})


def test_copies_of_towers_are_ignored_and_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rewrite(folder, lambda t: t.update({"model.vision_tower.vision_tower.x": torch.zeros(2)}))
    with caplog.at_level(logging.INFO):
        load_backbone(paths(folder))
    assert "1 tower tensors ignored" in caplog.text


def test_wrong_weights_are_refused_by_name(folder: Path) -> None:
    original = {k: v.clone() for k, v in read_weights(folder / "base").items()}
    norm = "model.layers.1.input_layernorm.weight"
    cases: dict[str, dict[str, Tensor | None]] = {
        f"missing .*{norm}": {norm: None},
        "unexpected .*model.layers.1.new": {"model.layers.1.new": torch.zeros(1)},
        f"of other shape .*{norm}": {norm: torch.zeros(5)},
        r"no tensor model\.mm_projector\.": {k: None for k in original if "mm_projector" in k},
        r"(?s)mm_projector.*2\.bias": {"model.mm_projector.2.bias": None},
        r"(?s)mm_audio_aligner.*query_tokens": {"model.mm_audio_aligner.query_tokens": torch.zeros(1, 4, 12)},
    }
    for message, change in cases.items():
        tensors = {k: v for k, v in (original | change).items() if v is not None}

        def replace(stored: dict[str, Tensor], tensors: dict[str, Tensor] = tensors) -> None:
            stored.clear()
            stored.update(tensors)

        rewrite(folder, replace)
        with pytest.raises(ValueError, match=message) as error:
            load_backbone(paths(folder))
        assert str(folder / "base") in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama', expected llava.*train_base"),
        ({"mm_projector_type": ...}, "lacks .*mm_projector_type"),
        ({"mm_projector_type": "resampler"}, "unknown projector type 'resampler'"),
        ({"mm_hidden_size": 9}, "8 wide.*mm_hidden_size 9"),
        ({"mm_audio_hidden_size": 9}, "12 wide.*mm_audio_hidden_size 9"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"audio_qformer": {"depth": 1}}, r"unknown keys \['depth'\]"),
        ({"num_hidden_layers": 4}, "missing .*layers.3"),
        ({"mm_vision_select_layer": -4}, "select_layer -4"),
    ],
)
def test_wrong_configurations_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    configure(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load_backbone(paths(folder))


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("must_not_exist",)


def test_damaged_files_are_refused_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    base = folder / "base"
    shard = base / "pytorch_model-00002-of-00002.bin"
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 3])
    with pytest.raises(ValueError, match=r"00002-of-00002\.bin.*truncated"):
        load_backbone(paths(folder))
    torch.save({"model.norm.weight": Payload()}, shard)
    with pytest.raises(ValueError, match=r"00002-of-00002\.bin.*carrying code"):
        load_backbone(paths(folder))
    assert not Path("must_not_exist").exists()
    shard.unlink()
    with pytest.raises(ValueError, match=r"1 of 2 weight files are missing: pytorch_model-00002"):
        load_backbone(paths(folder))
    shard.write_bytes(content)
    (base / "tokenizer.model").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.model: no such file"):
        load_backbone(paths(folder))
    (base / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json: no such file"):
        load_backbone(paths(folder))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_which_checkpoints(tmp_path: Path) -> None:
    names = (BASE, VISION, AUDIO)
    with pytest.raises(ValueError, match=r"missing .*tiny.*found none"):
        find_checkpoints(tmp_path)
    touch(tmp_path / "tiny", *names)
    assert find_checkpoints(tmp_path) == (BackbonePaths(*(tmp_path / "tiny" / n for n in names)), "tiny")
    assert find_checkpoints(tmp_path / "tiny") == find_checkpoints(tmp_path)
    touch(tmp_path, BASE, AUDIO)
    with pytest.raises(ValueError, match=rf"missing {tmp_path / VISION}; found {tmp_path / BASE}"):
        find_checkpoints(tmp_path)
    touch(tmp_path, VISION)
    assert find_checkpoints(str(tmp_path)) == (BackbonePaths(*(tmp_path / n for n in names)), "published")
