"""evaluation/eval_all.py: what a summary says about its questions, and one run for each results file."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import eval_anchor
from data.benchmark import read_benchmark
from data.files import only_run_for
from evaluation import eval_all
from evaluation.eval_all import about, only_run, parser

REFUSED = r"task0_a_results\.answers\.jsonl: another run is writing here \(process"


def write_benchmark(path: Path, **stated: str) -> Path:
    """A benchmark file of one task without questions, with these fields."""
    (path / "test.json").write_text("[]")
    file = path / "b.json"
    file.write_text(json.dumps({"name": "B", "tasks": [{"name": "A", "test": "test.json"}], **stated}))
    return file


def recorded(path: Path, **stated: str) -> dict[str, object]:
    """What is recorded of such a file."""
    file = write_benchmark(path, **stated)
    inputs, backbone = SimpleNamespace(identity=dict), SimpleNamespace(identity="x")
    arguments = parser().parse_args(["--benchmark", str(file)])
    return about(read_benchmark(file), arguments, cast(Any, inputs), cast(Any, backbone))


def test_the_protocol_of_the_benchmark_file_is_recorded(tmp_path: Path) -> None:
    assert recorded(tmp_path, protocol="half of val")["protocol"] == "half of val"
    assert "protocol" not in recorded(tmp_path)


@pytest.mark.parametrize("folder", [".", "seed_3"])
def test_one_results_file_has_one_run_of_either_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    benchmark, output = write_benchmark(tmp_path), tmp_path / "results" / folder / "task0_a_results.json"
    monkeypatch.setattr(eval_all, "only_run_for", partial(only_run_for, patience=0.1))
    monkeypatch.setattr(eval_anchor, "FILE_PATIENCE", 0.1)
    flags = ["--benchmark", benchmark, "--results", tmp_path / "results", "--seeds", "0 3 3", "--quiet"]
    with (
        only_run_for(output.with_suffix(".answers.jsonl")),
        pytest.raises(ValueError, match=REFUSED),
    ):
        eval_all.main(parser().parse_args([*map(str, flags)]))
    with only_run(tmp_path / "results", [0, 3, 3], read_benchmark(benchmark)):
        for name, wanted in ((output, REFUSED), (output.with_name("other.json"), "gone.json")):
            line = ["--data_path", tmp_path / "gone.json", "--output", name, "--quiet"]
            with pytest.raises((ValueError, OSError), match=wanted):
                eval_anchor.main(eval_anchor.parser().parse_args([*map(str, line)]))
