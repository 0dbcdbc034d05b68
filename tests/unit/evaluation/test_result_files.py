"""The report: the shape of summary.json, and that Markdown, text and pictures follow from it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.result_files import (
    MethodResult,
    build_summary,
    format_summary,
    results_markdown,
    summary_to_markdown,
    write_report,
)
from evaluation.scoring.routing import RoutingRecord
from evaluation.scoring.statistics import Array

N = None
RIGHT, WRONG = np.ones(50), np.zeros(50)
MIXED = np.arange(50) % 2 * 1.0
TASKS = ["Come", "Where"]
RECORDS = (
    RoutingRecord([0, 0, 1, 1], [0, 0, 1, 1], {"text": [0, 0, 1, 1], "audio": [1, 0, N, N]}),
    RoutingRecord([0, 0, 1, 1], [0, 1, 1, 1], {"text": [0, 1, 1, 1], "audio": [1, 0, N, N]}),
)
METHODS = [
    MethodResult("zero_shot", ([[2.0, 4.0]],), 4, (1,)),
    MethodResult(
        "anchor_moe", ([[90.0, 6.0], [88.0, 96.0]], [[92.0, 8.0], [92.0, 94.0]]), 4, (0, 1), RECORDS
    ),
    MethodResult("oracle", ([[90.0, 6.0], [90.0, 96.0]], [[92.0, 8.0], [92.0, 96.0]]), 4, (0, 0)),
    MethodResult("sequential", ([[90.0, N], [40.0, 96.0]], [[92.0, N], [50.0, 94.0]]), 4, (0, 0)),
    MethodResult("joint", note="no artifacts in output/joint"),
]


@pytest.fixture
def summary() -> dict[str, Any]:
    return build_summary("AVQA", TASKS, [0, 1], METHODS, {"commit": "0123abc", "versions": {"torch": "2.9"}})


def with_samples(name: str, *last: Array) -> MethodResult:
    """A method of one seed that was right about all at first and at the end about these."""
    samples = {(0, 0): RIGHT, **{(1, task): scores for task, scores in enumerate(last)}}
    matrix = [[100.0, N], [100 * float(scores.mean()) for scores in last]]
    return MethodResult(name, (matrix,), 100, (0,), samples=(samples,), normalised=([2.0, 50.0],))


def test_intervals_and_tests() -> None:
    methods = [with_samples("anchor_moe", RIGHT, MIXED), with_samples("sequential", WRONG, MIXED)]
    summary = build_summary("X", TASKS, [0], methods, {})
    entry = summary["methods"]["sequential"]
    assert entry["AF_interval"] == [100.0, 100.0] and entry["matrix_interval"][0] == [[100.0, 100.0], N]
    assert entry["MA_interval"][0] < entry["MA"] == 25.0 < entry["MA_interval"][1]
    assert list(summary["tests"]) == ["sequential"]
    test = summary["tests"]["sequential"]
    assert (test["MA_difference"], test["MA_difference_interval"]) == (50.0, [50.0, 50.0])
    assert test["p"] == test["p_holm"] == 0.0001
    assert test["mcnemar"] == [[float(f"{2 / 2**50:.3g}"), 1.0]]
    text = summary_to_markdown(json.loads(json.dumps(summary, allow_nan=False)))
    low, high = entry["matrix_interval"][1][1]
    assert f"| after Where | 0.00 [0.00, 0.00] | 50.00 [{low:.2f}, {high:.2f}] |" in text
    assert "| after Come | 100.00 [100.00, 100.00] | - |" in text
    low, high = entry["MA_interval"]
    assert f"| 25.00 | [{low:.2f}, {high:.2f}] | 100.00 | [100.00, 100.00] | 26.00 | +50.00 |" in text
    assert (entry["MA_normalised"], entry["MA_normalised_std"]) == (26.0, N)
    assert "+50.00" in format_summary(summary)


def test_without_samples_there_are_no_intervals(summary: dict[str, Any]) -> None:
    assert summary["tests"] == {} and summary["methods"]["anchor_moe"]["MA_interval"] is None
    assert "Intervals" not in summary_to_markdown(summary)


def test_shape_of_the_summary(summary: dict[str, Any]) -> None:
    assert (summary["benchmark"], summary["tasks"], summary["seeds"]) == ("AVQA", TASKS, [0, 1])
    assert list(summary["methods"]) == ["anchor_moe", "oracle", "sequential", "zero_shot"]
    needed = {"matrix", "MA", "AF", "Avg", "FM", "BWT", "FWT", "routing_accuracy", "n", "n_failed"}
    for entry in summary["methods"].values():
        assert needed <= set(entry)
        assert {f"{name}_std" for name in needed - {"n"}} <= set(entry)
        assert len(entry["matrix"]) == len(TASKS)
    assert summary["not_run"] == {"joint": "no artifacts in output/joint", "blind": ""}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_numbers_of_the_summary(summary: dict[str, Any]) -> None:
    moe = summary["methods"]["anchor_moe"]
    assert moe["matrix"] == [[91.0, 7.0], [90.0, 95.0]]
    assert moe["matrix_std"][1] == [round(8**0.5, 4), round(2**0.5, 4)]
    assert (moe["MA"], moe["AF"], moe["BWT"], moe["FWT"]) == (92.5, 1.0, -1.0, 3.0)
    assert (moe["MA_std"], moe["AF_std"]) == (round(0.5**0.5, 4), round(2**0.5, 4))
    assert (moe["n"], moe["n_failed"]) == (4, 0.5)
    assert (moe["routing_accuracy"], moe["routing_accuracy_macro"]) == (87.5, 87.5)
    assert moe["routing_confusion"] == [[3, 1], [0, 4]]
    assert moe["routing_by_modality"]["audio"] == {"accuracy": 50.0, "accuracy_std": 0.0, "n": 2}
    assert moe["oracle_gap"] == 93.5 - 92.5
    assert [seed["MA"] for seed in moe["per_seed"]] == [92.0, 93.0]


def test_cells_and_metrics_not_reached_are_null(summary: dict[str, Any]) -> None:
    assert summary["methods"]["sequential"]["matrix"][0][1] is None
    assert summary["methods"]["sequential"]["FWT"] is None
    bare = summary["methods"]["zero_shot"]
    assert bare["matrix"] == [[N, N], [2.0, 4.0]]
    assert (bare["MA"], bare["MA_std"], bare["AF"], bare["routing_accuracy"]) == (3.0, N, N, N)
    assert (bare["n_failed"], bare["n_failed_std"]) == (1, N)


def test_task_ids_need_not_start_at_zero() -> None:
    records = tuple(RoutingRecord([5, 9], [5, chosen]) for chosen in (9, 5))
    method = MethodResult("anchor_moe", METHODS[1].matrices, 2, (0, 0), records)
    summary = build_summary("X", TASKS, [0, 1], [method], {}, task_ids=[5, 9])
    assert summary["methods"]["anchor_moe"]["routing_confusion"] == [[2, 0], [1, 1]]


def test_markdown_has_numbers_formulas_and_missing_rows(summary: dict[str, Any]) -> None:
    text = summary_to_markdown(json.loads(json.dumps(summary)), pictures=["forgetting.png"])
    assert "| anchor MoE | 92.50 +- 0.71 | 1.00 +- 1.41 |" in text
    assert "| joint training (upper bound) | not run |" in text and "no artifacts in output/joint" in text
    assert "| blind (no video, no audio) | not run |" in text
    assert "| bare backbone (zero-shot) | 3.00 | - |" in text
    for name, formula in summary["formulas"].items():
        assert f"* {name} = `{formula}`" in text
    assert "| after Come | 91.00 | 7.00 |" in text and "| final | 2.00 | 4.00 |" in text
    assert "| Come | 3 | 1 |" in text and "| audio | 50.00 | 2 |" in text
    assert "(forgetting.png)" in text and "0123abc" in text and "torch 2.9" in text
    assert results_markdown(summary).strip() in text
    assert text.isascii()


def test_the_protocol_is_named_where_the_benchmark_has_one(summary: dict[str, Any]) -> None:
    assert "protocol" not in summary_to_markdown(summary)
    stated = summary | {"provenance": {"protocol": "half of val"}}
    assert "protocol: half of val\n" in results_markdown(stated) and "half of val" in format_summary(stated)


def test_tables_of_markdown_are_regular(summary: dict[str, Any]) -> None:
    columns: set[int] = set()
    for line in [*summary_to_markdown(summary).splitlines(), ""]:
        if line.startswith("|"):
            columns.add(line.count("|"))
        else:
            assert len(columns) <= 1, line
            columns = set()


def test_abstentions_have_a_column() -> None:
    record = RoutingRecord([0, 1], [0, -1])
    method = MethodResult("anchor_moe", ([[90.0, N], [90.0, 80.0]],), 2, (0,), (record,))
    summary = build_summary("X", TASKS, [0], [method], {})
    assert "| Where | 0 | 0 | 1 |" in summary_to_markdown(summary)
    assert "bare backbone" in format_summary(summary)


def test_printed_text(summary: dict[str, Any]) -> None:
    lines = format_summary(summary).splitlines()
    assert lines[0].startswith("AVQA: 2 tasks (Come, Where), seeds 0, 1")
    assert any(line.startswith("sequential fine-tuning") and "70.00" in line for line in lines)
    assert any(line.startswith("MA ") and line.endswith("= mean_i R[T][i]") for line in lines)
    assert any(line.split() == ["after", "Where", "90.00", "95.00"] for line in lines)


def test_written_files_agree(tmp_path: Path, summary: dict[str, Any]) -> None:
    provenance = {"commit": "0123abc", "versions": {"torch": "2.9"}}
    written = write_report(tmp_path / "new", "AVQA", TASKS, [0, 1], METHODS, provenance)
    stored = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert stored == written == summary
    pictures = ["accuracy_matrix.png", "forgetting.png", "routing_confusion.png"]
    expected = summary_to_markdown(stored, pictures=pictures)
    assert (tmp_path / "new" / "summary.md").read_text() == expected
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "SHA256SUMS",
        *pictures,
        "summary.json",
        "summary.md",
    ]
    for name in pictures:
        with Image.open(tmp_path / "new" / name) as picture:
            assert picture.width > 300 and picture.height > 200
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 10  # something is drawn


def test_pictures_are_left_out_where_there_is_nothing_to_show(tmp_path: Path) -> None:
    write_report(tmp_path, "X", TASKS, [0], [MethodResult("zero_shot", ([[2.0, 4.0]],), 4, (0,))], {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SHA256SUMS", "summary.json", "summary.md"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "magic"}, "expected one of anchor_moe"),
        ({"name": "joint", "matrices": ([[1.0]],), "n": 1}, "1 matrices, 0 counts"),
        ({"name": "joint", "matrices": ([[1.0]],), "n": 1, "n_failed": (2,)}, "expected 0 to n = 1"),
        (
            {"name": "joint", "matrices": ([[1.0]],), "n": 1, "n_failed": (0,), "routing": RECORDS},
            "2 routing",
        ),
        (
            {"name": "joint", "matrices": ([[1.0]],), "n": 1, "n_failed": (0,), "samples": ({}, {})},
            "2 seeds, expected 1",
        ),
    ],
)
def test_malformed_methods(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MethodResult(**arguments)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([METHODS[0], METHODS[0]], "at most once"),
        ([MethodResult("joint", ([[1.0]],), 1, (0,))], "matrix of 1 tasks, expected 2"),
        ([METHODS[1]], "2 matrices, expected 1 or 3"),
    ],
)
def test_methods_that_do_not_fit(tmp_path: Path, methods: list[MethodResult], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path, "X", TASKS, [0, 1, 2], methods, {})
    assert not list(tmp_path.iterdir())
