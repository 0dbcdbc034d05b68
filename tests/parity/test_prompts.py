"""Prompt ids and labels against the recorded values of the published system."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from data.prompts import PromptTokenizer, build_prompt
from data.samples import Sample, read_samples

FILES = {"sample": "samples.json", "edge": "edge_samples.json"}


@pytest.fixture(scope="module")
def folder(parity_root: Path) -> Path:
    return parity_root / "avqacl_moe"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PromptTokenizer:
    from transformers import LlamaTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the old config beside the tokenizer
        return PromptTokenizer(LlamaTokenizer.from_pretrained(folder / "checkpoints" / "base"))


@pytest.fixture(scope="module")
def pairs(folder: Path) -> dict[str, tuple[Sample, dict[str, Any]]]:
    """Name -> sample and what was recorded for it."""
    recorded = json.loads((folder / "expected" / "prompts.json").read_text())
    read = {kind: read_samples(folder / name) for kind, name in FILES.items()}
    samples = {
        f"{kind}_{number}": sample for kind, group in read.items() for number, sample in enumerate(group)
    }
    assert samples.keys() == recorded.keys()
    return {name: (samples[name], recorded[name]) for name in recorded}


def test_open_prompts(pairs: dict[str, tuple[Sample, dict[str, Any]]], tokenizer: PromptTokenizer) -> None:
    for name, (sample, expected) in pairs.items():
        prompt = build_prompt(tokenizer, sample.question)
        assert sample.id == expected["id"], name
        assert prompt.labels is None, name
        assert prompt.input_ids.tolist() == expected["eval_input_ids"], name


def test_answered_prompts(
    pairs: dict[str, tuple[Sample, dict[str, Any]]], tokenizer: PromptTokenizer
) -> None:
    for name, (sample, expected) in pairs.items():
        prompt = build_prompt(tokenizer, sample.question, sample.answer)
        assert prompt.labels is not None, name
        assert prompt.input_ids.tolist() == expected["train_input_ids"], name
        assert prompt.labels.tolist() == expected["train_labels"], name


def test_legacy_flag(
    pairs: dict[str, tuple[Sample, dict[str, Any]]],
    tokenizer: PromptTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not tokenizer.legacy
    monkeypatch.setattr(tokenizer, "legacy", True)
    for name, (sample, expected) in pairs.items():
        ids = build_prompt(tokenizer, sample.question).input_ids.tolist()
        assert ids == expected["eval_input_ids_if_legacy_true"], name
