"""The published formulation and ours have one gradient."""

from pathlib import Path

import pytest
import torch

from examples.nyu.benchmark import Side, distance, main, make_parser, make_side

SMALL = ["--encoder", "plain", "--size", "32", "48", "--steps", "1", "--threads", "1"]


def gradients(side: str) -> dict[str, torch.Tensor]:
    step, trainer = make_side(make_parser().parse_args([*SMALL, "--side", side]))
    torch.manual_seed(0)
    step()
    return {name: p.grad for name, p in trainer.model.named_parameters()}


def test_one_gradient() -> None:
    exact = distance(gradients("ours_fp64"), gradients("published_fp64"))
    assert exact.whole < 1e-10 and exact.worst < 1e-8
    assert distance(gradients("ours"), gradients("published")).whole < 1e-4


def test_distance() -> None:
    ones = {"a": torch.ones(3), "b": torch.full((1,), 0.1)}
    found = distance({"a": torch.ones(3), "b": torch.full((1,), 0.2)}, ones)
    assert found.name == "b" and found.worst == pytest.approx(1, rel=1e-5)
    assert found.whole == pytest.approx(0.1 / 3.01**0.5, rel=1e-5)
    assert str(found).startswith("5.8e-02 off; worst tensor b, 1.0e+00")


def test_sides_step_in_turn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [*SMALL, "--sides", "ours"]
    monkeypatch.setattr("sys.argv", ["benchmark.py", *flags])
    main(make_parser().parse_args(flags))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["published", "ours", "gradients,", "ours"]
    assert "times as fast" in lines[-1]


def test_a_side_that_dies_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--encoder", "huge"])
    with pytest.raises(ValueError, match=r"(?s)ours failed: .*invalid choice: 'huge'"):
        Side("ours", tmp_path)
