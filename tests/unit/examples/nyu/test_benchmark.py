"""The published formulation and ours have one gradient."""

from pathlib import Path

import pytest
import torch

from examples.nyu.benchmark import distance, make_parser, run_side

SMALL = "--encoder plain --size 32 48 --steps 1 --threads 1"


def gradients(side: str, folder: Path) -> dict[str, torch.Tensor]:
    path = folder / f"{side}.pt"
    found = run_side(make_parser().parse_args([*SMALL.split(), "--side", side, "--gradients", str(path)]))
    assert found["peak"] > 0 and found["seconds"] > 0
    return torch.load(path)


def test_one_gradient(tmp_path: Path) -> None:
    exact = distance(gradients("ours_fp64", tmp_path), gradients("published_fp64", tmp_path))
    assert exact.whole < 1e-10 and exact.worst < 1e-8
    assert distance(gradients("ours", tmp_path), gradients("published", tmp_path)).whole < 1e-4


def test_distance() -> None:
    ones = {"a": torch.ones(3), "b": torch.full((1,), 0.1)}
    found = distance({"a": torch.ones(3), "b": torch.full((1,), 0.2)}, ones)
    assert found.name == "b" and found.worst == pytest.approx(1, rel=1e-5)
    assert found.whole == pytest.approx(0.1 / 3.01**0.5, rel=1e-5)
    assert str(found).startswith("5.8e-02 off; worst tensor b, 1.0e+00")
