"""Texts, ids and labels of prompts against the recorded values of the published system."""

from typing import Any

import pytest
import torch

from data.prompts import SYSTEM, build_prompt
from tests.parity.recorded import RecordedSet


def test_prompts_are_recorded_for_every_sample(recorded: RecordedSet, cases: dict[str, Any]) -> None:
    assert set(recorded.file("prompts.json")) == set(cases)


def test_open_prompts(case: Any, recorded: RecordedSet) -> None:
    expected = recorded.file("prompts.json")[case.name]
    prompt = case.open_prompt
    assert case.sample.id == str(expected["id"])
    assert expected["eval_prompt"] == f"{SYSTEM} USER: {case.sample.question} ASSISTANT:"
    assert prompt.labels is None
    assert prompt.input_ids.tolist() == expected["eval_input_ids"]


def test_answered_prompts(case: Any, recorded: RecordedSet) -> None:
    expected = recorded.file("prompts.json")[case.name]
    prompt, sample = case.closed_prompt, case.sample
    end = case.tokenizer.eos_token
    assert expected["train_prompt"] == f"{SYSTEM} USER: {sample.question} ASSISTANT: {sample.answer}{end}"
    assert prompt.input_ids.tolist() == expected["train_input_ids"]
    assert torch.is_tensor(prompt.labels) and prompt.labels.tolist() == expected["train_labels"]


def test_legacy_flag(case: Any, recorded: RecordedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = recorded.file("prompts.json")[case.name]
    assert not case.tokenizer.legacy
    monkeypatch.setattr(case.tokenizer, "legacy", True)
    ids = build_prompt(case.tokenizer, case.sample.question).input_ids.tolist()
    assert ids == expected["eval_input_ids_if_legacy_true"]
