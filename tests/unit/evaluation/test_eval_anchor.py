"""eval_anchor.py: one run for each output."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

import eval_anchor
from data.files import only_run_for


def ask(*flags: object) -> str:
    """Why the command does not run."""
    with pytest.raises((ValueError, OSError)) as raised:
        eval_anchor.main(eval_anchor.parser().parse_args([*map(str, flags), "--quiet"]))
    return str(raised.value)


def test_a_second_run_for_one_output_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "disable", lambda level: None)
    monkeypatch.setattr(eval_anchor, "FILE_PATIENCE", 0.1)
    monkeypatch.setattr(eval_anchor, "CLIP_PATIENCE", 0.1)
    nothing = ("--expert_weights_save_path", tmp_path / "none", "--anchor_save_path", tmp_path / "none")
    file = ("--data_path", tmp_path / "gone.json", "--output", tmp_path / "one.json", *nothing)
    other = ("--data_path", tmp_path / "gone.json", "--output", tmp_path / "two.json", *nothing)
    clip = ("--clip", tmp_path / "gone.wav", "--question", "What?", "--feature_store", tmp_path, *nothing)
    missing = ("--checkpoints", tmp_path / "none")
    refused = f"another run is writing here (process {os.getpid()} on "
    for flags, answers in ((file, "one.answers.jsonl"), (clip, "answers.jsonl")):
        with only_run_for(tmp_path / answers):
            assert f"{answers}: {refused}" in ask(*flags)
            assert "gone.json" in ask(*other)
        assert refused not in ask(*flags, *missing)  # it came as far as what is missing
