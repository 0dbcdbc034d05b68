"""The tiny backbone is made from nothing, at the smallest size, and loads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.language_model.backbone import AUDIO, BASE, VISION, BackbonePaths, load_backbone

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.recipe
def test_every_stage_runs_and_the_result_loads(tmp_path: Path) -> None:
    made = tmp_path / "tiny"
    command = ["bash", str(ROOT / "scripts" / "make_tiny_backbone.sh"), "--smoke"]
    command += ["--output", str(made), "--work", str(tmp_path / "work")]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        "random weights" in done.stdout
        and "| sound, from audio features |" in (made / "README.md").read_text()
    )
    assert sum(f.stat().st_size for f in made.rglob("*") if f.is_file()) < 10e6
    backbone = load_backbone(BackbonePaths(made / BASE, made / VISION, made / AUDIO))
    tokens = backbone.encoder.encode_audio([torch.randn(40_000) * 0.1])[0].tokens
    assert tokens.shape == (8, backbone.llm.config.hidden_size) and bool(tokens.isfinite().all())
