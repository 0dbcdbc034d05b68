"""The comparison of architectures: runs what is missing, takes what is finished, writes all tables."""

import json
from pathlib import Path

import pytest

from data.dense.rooms import write_rooms
from examples.nyu.compare import main, make_parser, verdict


def test_two_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rooms = write_rooms(tmp_path / "rooms", 10, 2, 16, 16)
    line = (
        "--rows CGC AoE-MTL --baseline CGC --seeds 0 --epochs 1 --img_size 3 16 16 --width 2 --head_width 4"
    )
    flags = [*line.split(), "--quiet", "--dataset_path", str(rooms), "--out", str(tmp_path / "out")]
    main(make_parser().parse_args(flags))
    printed = capsys.readouterr().out
    assert ("against CGC" in printed or "is not defined" in printed) and "delta-m = 100" in printed
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert list(table["rows"]) == ["CGC", "AoE-MTL"]
    assert {"table.md", "table.tex"} <= {path.name for path in (tmp_path / "out").iterdir()}
    before = (tmp_path / "out" / "CGC_seed_0" / "result.json").stat().st_mtime_ns
    main(make_parser().parse_args(flags))
    assert (tmp_path / "out" / "CGC_seed_0" / "result.json").stat().st_mtime_ns == before


def test_verdict() -> None:
    def rows(**gains: float) -> dict:
        return {
            "rows": {n.replace("_", "-"): {"columns": {"delta-m": {"mean": g}}} for n, g in gains.items()}
        }

    assert "at least on a par" in verdict(rows(AoE_MTL=2.0, CGC=2.5, MMoE=1.0))
    assert "NOT on a par" in verdict(rows(AoE_MTL=1.0, CGC=2.5, MMoE=1.0))
    assert "not compared" in verdict(rows(CGC=2.5))
