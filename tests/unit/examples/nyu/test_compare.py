"""The comparison of architectures: runs what is missing, takes what is finished, writes all tables."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.dense.rooms import write_rooms
from evaluation.scoring.dense import HIGHER_IS_BETTER
from examples.nyu import compare
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


def scored(folder: Path, seed: int, value: float, **changes: Any) -> Path:
    """A folder with what main.py leaves in result.json, as far as the table goes."""
    scores = {task: dict.fromkeys(names, value) for task, names in HIGHER_IS_BETTER.items()}
    config = {"seed": seed, "dataset": "nyuv2", "dataset_path": "/data/nyu"}
    result = {"config": config, "samples": 9, "test": scores, "flops": 2e9, "parameters": 3_000_000}
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result | changes))
    return folder


def tabulate(out: Path, *runs: str) -> None:
    main(make_parser().parse_args(["--results", *runs, "--baseline", "one", "--out", str(out)]))


def test_the_table_of_runs_that_are_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [scored(tmp_path / str(n), n % 2, 0.5 if n < 2 else 0.25) for n in range(4)]
    rows = [f"{row}={folder}" for row, folder in zip(("one", "one", "a=b", "a=b"), folders, strict=True)]
    with pytest.raises(ValueError, match="b=.*result.json: no such file"):
        tabulate(tmp_path / "out", *rows)
    rows = [row.replace("a=b", "other") for row in rows]
    tabulate(tmp_path / "out", *rows)
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert {row: about["seeds"] for row, about in table["rows"].items()} == {"one": [0, 1], "other": [0, 1]}
    assert table["rows"]["other"]["columns"]["segmentation mIoU"]["mean"] == 25
    assert "| other | 25.00" in (tmp_path / "out" / "table.md").read_text()
    assert "other & 25.00" in (tmp_path / "out" / "table.tex").read_text()
    assert "other" in capsys.readouterr().out


def test_a_table_of_other_runs_does_not_replace_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tmp_path / "compare"
    monkeypatch.setattr(compare, "USUAL_OUT", usual)
    row = f"one={scored(tmp_path / '0', 0, 0.5)}"
    with pytest.raises(ValueError, match=f"--results without --out; name a folder .*, since {usual} has"):
        main(make_parser().parse_args(["--results", row, "--baseline", "one"]))
    assert not usual.exists()


def test_results_that_do_not_fit_are_named(tmp_path: Path) -> None:
    good = f"one={scored(tmp_path / 'good', 0, 0.5)}"
    cities = {"seed": 0, "dataset": "cityscapes", "dataset_path": "/data/nyu"}
    elsewhere = {"seed": 0, "dataset": "nyuv2", "dataset_path": "rooms"}
    faults = [
        ("two", "--results 'two'; expected ROW=FOLDER"),
        (f"two={tmp_path}", f"{tmp_path}/result.json: no such file; expected the folder of a finished run"),
        (f"two={scored(tmp_path / 'list', 0, 0.5, test=[1])}", "list/result.json: no result of main.py"),
        (f"two={scored(tmp_path / 'text', 0, 0.5, flops='2')}", "text/result.json: no result of main.py"),
        (f"two={scored(tmp_path / 'less', 0, 0.5, test={'depth': {'abs_err': 1.0}})}", "one dataset"),
        (f"two={scored(tmp_path / 'fewer', 0, 0.5, samples=4)}", "samples 4, .*good/result.json has 9;"),
        (f"two={scored(tmp_path / 'cities', 0, 0.5, config=cities)}", "dataset cityscapes, .* has nyuv2"),
        (f"two={scored(tmp_path / 'place', 0, 0.5, config=elsewhere)}", "rooms True, .* has False"),
        (f"one={scored(tmp_path / 'again', 0, 0.5)}", "a second run of one with seed 0"),
        (f"two={scored(tmp_path / 'other', 1, 0.5)}", r"two: seeds \[1\], the baseline has \[0\]"),
    ]
    for fault, message in faults:
        with pytest.raises(ValueError, match=message):
            tabulate(tmp_path / "out", good, fault)
    (tmp_path / "good" / "result.json").write_text("{")
    with pytest.raises(ValueError, match="good/result.json: not readable as JSON"):
        tabulate(tmp_path / "out", good)
    with pytest.raises(ValueError, match="--baseline 'one'; expected one of STL, HPS"):
        main(make_parser().parse_args(["--baseline", "one", "--out", str(tmp_path)]))
    assert not (tmp_path / "out").exists()


def test_verdict() -> None:
    def rows(**gains: float) -> dict:
        return {
            "rows": {n.replace("_", "-"): {"columns": {"delta-m": {"mean": g}}} for n, g in gains.items()}
        }

    assert "at least on a par" in verdict(rows(AoE_MTL=2.0, CGC=2.5, MMoE=1.0))
    assert "NOT on a par" in verdict(rows(AoE_MTL=1.0, CGC=2.5, MMoE=1.0))
    assert "not compared" in verdict(rows(CGC=2.5))
