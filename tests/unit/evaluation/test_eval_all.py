"""evaluation/eval_all.py: what a summary says about its questions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from data.benchmark import read_benchmark
from evaluation.eval_all import about, parser


def recorded(path: Path, **stated: str) -> dict[str, object]:
    """Of a benchmark file with these fields."""
    (path / "test.json").write_text("[]")
    file = path / "b.json"
    file.write_text(json.dumps({"name": "B", "tasks": [{"name": "A", "test": "test.json"}], **stated}))
    inputs, backbone = SimpleNamespace(identity=dict), SimpleNamespace(identity="x")
    arguments = parser().parse_args(["--benchmark", str(file)])
    return about(read_benchmark(file), arguments, cast(Any, inputs), cast(Any, backbone))


def test_the_protocol_of_the_benchmark_file_is_recorded(tmp_path: Path) -> None:
    assert recorded(tmp_path, protocol="half of val")["protocol"] == "half of val"
    assert "protocol" not in recorded(tmp_path)
