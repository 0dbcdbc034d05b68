"""Number formats and attention kernels: what a machine lacks is said before anything is read."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from model.language_model.backbone import BackbonePaths, load_backbone
from model.language_model.loading import Loading

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    gone = ("bitsandbytes", "flash_attn")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in gone else find(name, *rest)
    )


@pytest.mark.parametrize("values", [{"bits": 5}, {"attn_implementation": "fast"}])
def test_unknown_values_are_named(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected one of (16, 8, 4|eager, sdpa, flash_attention_2)"):
        Loading(**values)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantisation_needs_a_gpu_and_its_package(bits: int, no_packages: None) -> None:
    with pytest.raises(ValueError, match=rf"--bits {bits} .*needs an NVIDIA or AMD GPU.*cpu"):
        Loading(bits=bits).check(CPU)
    with pytest.raises(ValueError, match="pip install bitsandbytes"):
        Loading(bits=bits).check(GPU)


def test_flash_attention_needs_a_gpu_its_package_and_16_bits(
    no_packages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    flash = Loading(torch.bfloat16, attn_implementation="flash_attention_2")
    with pytest.raises(ValueError, match="needs an NVIDIA or AMD GPU"):
        flash.check(CPU)
    with pytest.raises(ValueError, match="pip install flash-attn"):
        flash.check(GPU)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: object())
    flash.check(GPU)
    with pytest.raises(ValueError, match="add --bf16 True"):
        Loading(attn_implementation="flash_attention_2").check(GPU)


def test_a_backbone_is_refused_before_its_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--bits 4"):
        load_backbone(BackbonePaths(tmp_path, tmp_path, tmp_path), bits=4)


def test_what_is_chosen_enters_the_identity_and_defaults_do_not() -> None:
    assert Loading().identity() == {}
    assert Loading(attn_implementation="sdpa").identity() == {}
    chosen = Loading(torch.bfloat16, 8, "eager")
    assert chosen.identity() == {"dtype": "bfloat16", "bits": 8, "attn_implementation": "eager"}


def test_four_bits_are_nf4_with_double_quantisation(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Loading(torch.bfloat16, 4).arguments(GPU)
    settings = chosen["quantization_config"]
    assert (settings.load_in_4bit, settings.load_in_8bit) == (True, False)
    assert settings.bnb_4bit_quant_type == "nf4"
    assert settings.bnb_4bit_use_double_quant
    assert settings.bnb_4bit_compute_dtype == torch.bfloat16
    assert chosen["device_map"] == {"": GPU}
    assert "quantization_config" not in Loading().arguments(CPU)
