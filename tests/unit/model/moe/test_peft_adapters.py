"""Adapter folders without PEFT: exact round trips, and everything an expert cannot be is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.moe.expert_files import ExpertHeader
from model.moe.experts import ExpertBank
from model.moe.files import read_tensor_file, write_tensor_file
from model.moe.peft_adapters import CONFIG, WEIGHTS, read_adapter, write_adapter

HEADER = ExpertHeader("lora", 3, 6.0, 1, "base-1")


@pytest.fixture
def adapter(lora: ExpertBank, tmp_path: Path) -> Path:
    write_adapter(tmp_path / "task_1", HEADER, lora.state(1), "owner/llm")
    return tmp_path / "task_1"


def edit(adapter: Path, **changes: Any) -> None:
    path = adapter / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def foreign(adapter: Path) -> None:
    """As another maker would write it: without our header."""
    tensors = {key: value.clone() for key, value in load_file(adapter / WEIGHTS).items()}
    save_file(tensors, adapter / WEIGHTS, {"format": "pt"})


@pytest.mark.parametrize("pad_to", [None, 4])
@pytest.mark.parametrize("header", [HEADER, ExpertHeader("lora", 3, 0.1, 7, None, "answer")])
def test_a_round_trip_keeps_every_bit(
    lora: ExpertBank, tmp_path: Path, header: ExpertHeader, pad_to: int | None
) -> None:
    state = lora.state(1)
    write_adapter(tmp_path, header, state, "owner/llm", pad_to)
    stored = load_file(tmp_path / WEIGHTS)
    assert len(stored) == len(state) * (1 if pad_to is None else 2)
    assert set(stored) >= {f"base_model.model.{key}" for key in state}
    assert json.loads((tmp_path / CONFIG).read_text())["layers_to_transform"] == (
        [0, 2] if pad_to is None else [0, 1, 2, 3]
    )
    file, tensors = read_adapter(tmp_path)
    assert file.header == header and file.layers == (0, 2) and file.projections == lora.config.projections
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[key], value) for key, value in state.items())


def test_a_scope_is_warned_of_in_the_file(lora: ExpertBank, adapter: Path, tmp_path: Path) -> None:
    assert b"warning" not in (adapter / WEIGHTS).read_bytes()
    write_adapter(tmp_path, ExpertHeader("lora", 3, 6.0, 1, "base-1", "answer"), lora.state(1), "owner/llm")
    assert b"the last prompt token and the answer only" in (tmp_path / WEIGHTS).read_bytes()


def test_a_foreign_adapter_has_no_task_and_no_base(lora: ExpertBank, adapter: Path) -> None:
    foreign(adapter)
    edit(adapter, lora_dropout=0.1, peft_version="0.9", megatron_core="megatron.core", inference_mode=False)
    file, tensors = read_adapter(adapter)
    assert file.header == ExpertHeader("lora", 3, 6.0, None, None) and len(tensors) == 12
    edit(adapter, use_rslora=True, lora_alpha=5)
    scale = read_adapter(adapter)[0].header.alpha
    assert scale is not None and scale / 3 == pytest.approx(5 / 3**0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora is True"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"rank_pattern": {"up_proj": 8}}, "rank_pattern is"),
        ({"alpha_pattern": {"up_proj": 8}}, "alpha_pattern is"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens is"),
        ({"of_a_later_version": 1}, "of_a_later_version is 1"),
        ({"init_lora_weights": "pissa"}, "changed the base's weights too"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"r": 0}, "r is 0"),
        ({"lora_alpha": "8"}, "lora_alpha '8'"),
        ({"r": 4}, r"shape \(3, \d+\), expected rank 4"),
        ({"target_modules": ["up_proj"]}, r"names the modules \['up_proj'\]"),
    ],
)
def test_what_an_expert_cannot_be_is_refused(adapter: Path, changes: dict[str, Any], message: str) -> None:
    foreign(adapter)
    edit(adapter, **changes)
    with pytest.raises(ValueError, match=message):
        read_adapter(adapter)


def test_other_modules_and_missing_tensors_are_refused(adapter: Path) -> None:
    tensors = {key: value.clone() for key, value in load_file(adapter / WEIGHTS).items()}
    other = "base_model.model.model.layers.0.cross_attn.q_proj.lora_A.weight"
    save_file({**tensors, other: torch.zeros(3, 12)}, adapter / WEIGHTS)
    with pytest.raises(ValueError, match="q_proj.*experts live on the linear layers of MLPs and attention"):
        read_adapter(adapter)
    save_file({"lm_head.weight": torch.zeros(1), **tensors}, adapter / WEIGHTS)
    with pytest.raises(ValueError, match=r"'lm_head\.weight' is no tensor base_model"):
        read_adapter(adapter)
    for part in (".layers.2.mlp.up_proj.lora_B", ".layers.0.mlp.down_proj.lora_"):
        save_file({k: v for k, v in tensors.items() if part not in k}, adapter / WEIGHTS)
        with pytest.raises(ValueError, match="tensors missing"):
            read_adapter(adapter)
    save_file({}, adapter / WEIGHTS)
    with pytest.raises(ValueError, match="0 tensors missing"):
        read_adapter(adapter)


def test_an_edited_export_is_refused(lora: ExpertBank, adapter: Path, tmp_path: Path) -> None:
    edit(adapter, lora_alpha=8)
    with pytest.raises(ValueError, match=r"'alpha': 6\.0.*alpha 8\.0"):
        read_adapter(adapter)
    padded = tmp_path / "padded"
    write_adapter(padded, HEADER, lora.state(1), "owner/llm", 4)
    content = read_tensor_file(padded / WEIGHTS)
    key = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    write_tensor_file(padded / WEIGHTS, {**content, key: torch.ones(20, 3)})
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.lora_B\.weight is padding but not zero"):
        read_adapter(padded)


def test_what_is_no_adapter_is_not_written(lora: ExpertBank, tmp_path: Path) -> None:
    state = lora.state(1)
    published = ExpertHeader("mlp", None, None, None, None)
    with pytest.raises(ValueError, match="full-MLP expert is no adapter.*full rank"):
        write_adapter(tmp_path / "a", published, state, "llm")
    with pytest.raises(ValueError, match="has layers"):
        write_adapter(tmp_path / "a", HEADER, state, "llm", pad_to=2)
    next(iter(state.values()))[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        write_adapter(tmp_path / "a", HEADER, state, "llm")
    assert not (tmp_path / "a").exists()
    for content in ("{", "[]"):
        (tmp_path / CONFIG).write_text(content)
        with pytest.raises(ValueError, match=r"adapter_config\.json"):
            read_adapter(tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        read_adapter(tmp_path / "absent")
