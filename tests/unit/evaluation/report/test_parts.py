"""The parts of a chapter say what the summary says: tables, sentences, curves, maps, costs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluation.report.build import build_document
from evaluation.report.charts import curves, scatter
from evaluation.report.document import Cell, Code, Figure, Section, Side, Table, Text, table
from evaluation.report.evidence import cost_section, leakage_section, notes_chapter, provenance_section
from evaluation.report.page import to_html
from evaluation.report.plain_formats import to_latex, to_markdown
from evaluation.report.published import comparable
from evaluation.report.reading import Results, read_all_results
from evaluation.report.routes import confusion_section, map_section, modality_section
from evaluation.report.scores import ahead, forgetting_section, main_table, matrices_section, results_section
from evaluation.report.scoring import scoring_section
from tests.unit.evaluation.report.conftest import HOSTILE, make_judged


@pytest.fixture
def results(write_results: Callable[..., Path]) -> Results:
    return read_all_results([write_results()])[0]


def tables(section: Section) -> list[Table]:
    sides = [table for block in section.blocks if isinstance(block, Side) for table in block.tables]
    return [block for block in section.blocks if isinstance(block, Table)] + sides


def texts(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Text | Code))


def line(row: tuple[Cell, ...]) -> list[str]:
    return [cell.line for cell in row]


def test_main_table(results: Results) -> None:
    made = main_table(results)
    ours, sequential, blind, unlisted = made.rows
    assert line(made.header)[1:5] == [*results.tasks, "MA\u00a0\u2191", "AF\u00a0\u2193"]
    assert line(ours)[:5] == ["anchor MoE", "50.00", "50.00", "50.00", "40.00"] and ours[3].strong
    assert ours[3].note.startswith("[") and line(ours)[9] == "75.00"
    assert line(sequential)[4] == "90.00" and (blind[0].text, blind[0].note) == (
        "blind",
        "no video, no audio",
    )
    assert line(unlisted)[:2] == ["my <u>row", "0.00"]
    assert "Not run: oracle routing; joint training (</td>" in texts(results_section(results))


def test_the_protocol_stands_under_the_results(results: Results) -> None:
    assert main_table(results).caption.endswith("The benchmark file states no protocol.")
    about = results.summary["provenance"] | {"protocol": "half of val; 8 sessions"}
    stated = Results("x", None, {**results.summary, "provenance": about})
    assert main_table(stated).caption.endswith("Protocol: half of val; 8 sessions.")
    document = build_document([stated])
    for text in (to_html(document), to_markdown(document), to_latex(document)):
        assert text.count("Protocol: half of val; 8 sessions.") > 1  # above the results and under them


def with_split(results: Results, sizes: tuple[int, ...], split: str = "test") -> dict[str, Any]:
    entry = {**results.methods["anchor_moe"], "matrix": [[1.0] * len(sizes)] * len(sizes), "n": sum(sizes)}
    return {
        **results.summary,
        "tasks": [f"t{task}" for task in range(len(sizes))],
        "methods": {"anchor_moe": entry | {"matrix_std": entry["matrix"]}},
        "provenance": {"split": split},
        "not_run": {},
    }


def test_published_numbers_stand_beside_their_own_split_only(results: Results) -> None:
    assert comparable(results.summary) is None
    assert "not comparable with this one: Split-AVQA MA 86.41, AF 2.34; Split-MUSIC" in texts(
        results_section(results)
    )
    avqa, music = (1849, 928, 749, 2352), (947, 893, 711, 972, 637)
    found = comparable(with_split(results, avqa))
    assert found and (found.MA, found.AF) == (86.41, 2.34)
    found = comparable(with_split(results, music))
    assert found and (found.MA, found.AF) == (72.02, 1.79)
    assert comparable(with_split(results, avqa, "val")) is None
    assert comparable(with_split(results, (1849, 928, 749, 2353))) is None
    made = main_table(Results("x", None, with_split(results, music)))
    assert line(made.header)[-2:] == ["published MA", "published AF"]
    assert line(made.rows[0])[-2:] == ["72.02", "1.79"]


def test_where_ours_is_not_ahead(results: Results) -> None:
    summary = json.loads(json.dumps(results.summary))
    tests = summary["tests"]
    tests["sequential"] |= {"MA_difference": 5.0, "p_holm": 0.0001}
    tests["blind"] |= {"MA_difference": 5.0, "p_holm": 0.02}  # ahead, but not surely
    tests["joint"] = tests["blind"] | {"MA_difference": -1.0}
    first, second = ahead(Results("x", None, summary))
    assert (
        first
        == "Anchor MoE is ahead (p < 0.01 after Holm's correction) of: sequential fine-tuning of one LoRA "
        "(+5.00 points, p = 0.0001)."
    )
    assert "blind (+5.00 points, p = 0.02)" in second and "my <u>row (-3.00" in second
    assert second.endswith("Bounds on what is possible among these: joint training (sees all tasks at once).")
    summary["tests"] = {"sequential": tests["sequential"]}
    assert (
        ahead(Results("x", None, summary))[1]
        == "Where ours is not ahead: nowhere, among the methods that ran."
    )


def test_matrices_and_curves(results: Results) -> None:
    made = tables(matrices_section(results))
    assert len(made) == 4 and line(made[0].rows[1]) == [results.tasks[1], "50.0", "50.0"]
    assert made[0].rows[0][1].heat == 0.9 and made[1].rows[0][2] == Cell("")
    # One of two questions is right: a draw has none, one or both. The first stage has no single answers here.
    assert [cell.note for cell in made[0].rows[1]] == ["", "[0.0, 100.0]", "[0.0, 100.0]"]
    assert made[0].rows[0][1].note == ""
    [figure] = forgetting_section(results).blocks
    assert isinstance(figure, Figure) and len(figure.pictures) == 2  # all tasks so far, the first task
    assert figure.pictures[0].count("<polyline") == 4 and figure.pictures[0].count("ours") == 1


def test_a_curve_starts_where_its_task_was_learned() -> None:
    drawn = curves("x", ["a", "b", "c"], {0: [None, 100.0, 0.0]})
    points = drawn.split('points="')[1].split('"')[0].split()
    assert len(points) == 2
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in points)
    assert x1 > x0 and y1 > y0  # downwards is a larger y


def test_routing(results: Results) -> None:
    [made] = tables(confusion_section(results))
    assert [cell.text for cell in made.rows[1][1:]] == ["1", "1"] and made.rows[0][1].note == "100.0 %"
    section = modality_section(results)
    [made] = tables(section)
    assert line(made.rows[0]) == ["text", "75.00", "4", "75.0 %", "+0.500"]  # margins 1, 1, 1, -1
    assert line(made.rows[1])[1:] == ["50.00", "4", "25.0 %", "\u2013"]


def test_map(results: Results) -> None:
    figure = map_section(results).blocks[0]
    assert isinstance(figure, Figure) and len(figure.pictures) == 2
    assert figure.pictures[0].count('class="sample') == 3 and "cross" not in figure.pictures[0]
    crossed = scatter("x", [(0, 0.0, 0.0, False)], [(0, 1.0, 1.0, "a"), (1, 1.0, 1.001, "b")])
    assert crossed.count("cross") == 1
    heights = [float(part.split('"')[0]) for part in crossed.split(' y="')[-2:]]
    assert abs(heights[0] - heights[1]) >= 14  # labels of anchors at one place do not lie on each other


def test_cost(results: Results) -> None:
    section = cost_section(results)
    [made] = tables(section)
    assert line(made.rows[0]) == ["anchor MoE", "2", "1,234", "2,468", "4.0", "0.020"]
    assert line(made.rows[1])[-1] == "not recorded" and line(made.rows[2])[1:3] == ["0", "\u2013"]
    assert "25 ms a question (200 distinct answers in 5 s on cpu, threads 1" in texts(section)
    assert "Rows that use" not in made.caption


def test_cost_says_who_borrows_experts(results: Results) -> None:
    assert results.costs is not None
    entry = results.costs["trained"]["0"]
    entry["blind"] = entry["anchor_moe"]
    [made] = tables(cost_section(results))
    assert "Rows that use the experts of anchor MoE: blind (no video, no audio)." in made.caption


def test_judged_answers(results: Results) -> None:
    section = scoring_section(results)
    normalised, made = tables(section)
    assert line(normalised.rows[0]) == ["anchor MoE", "50.00", "50.00"] and len(normalised.rows) == 4
    first, second, both = made.rows
    shares = ["50.00", "50.00", "100.00", "50.00"]
    assert line(first) == [results.tasks[1], "2", "1", *shares, "0.25", "0", "0"]
    assert (second[0].note, line(second)[6:]) == ("seed_1", ["50.00", "\u2013", "1", "1"])
    assert line(both) == ["all", "4", "2", "50.00", "50.00", "50.00", "50.00", "\u2013", "1", "1"]
    assert HOSTILE in made.caption and "2 of 4 answers have no usable verdict" in texts(section)
    assert "judge again" not in texts(section)
    rows = make_judged()["rows"]
    for other in ({"exact": 0.0}, {"n": 3}):
        changed = replace(results, judged={"rows": [rows[0] | other, rows[1]], "judge": "m"})
        assert "about other answers than the results files have: judge again" in texts(
            scoring_section(changed)
        )


@pytest.mark.parametrize("rows", [None, [], [3], [{"name": "x", "n": 2, "kappa": 0.5}]])
def test_a_file_without_a_judge_is_told(results: Results, rows: Any) -> None:
    for content in ({"rows": rows, "judge": "m"}, {"rows": make_judged()["rows"]}):  # similarity alone
        section = scoring_section(replace(results, judged=content))
        assert len(tables(section)) == 1  # exact and normalised match
        assert "has no rows of a judge; scripts/judge_answers.py" in texts(section)


def test_leakage_statement(results: Results) -> None:
    section = leakage_section(results)
    [made] = tables(section)
    first = made.rows[0]
    assert [cell.text for cell in first[1:7]] == ["2", "2", "2", "1", "1", "1"]
    assert line(made.rows[1])[7:] == ["50.00", "0.00"] and made.rows[2][2].note == "100.0 %"
    found = texts(section)
    assert "Of 4 test questions, 4 are worded exactly as a training question and 2 are about a clip" in found
    assert "(the blind row), MA is 0.00 against 50.00" in found and "No two tasks share" in found


def test_provenance(results: Results) -> None:
    section = provenance_section(results)
    lines = texts(section).splitlines()
    assert lines[0].startswith("git checkout 0123abc") and lines[1] == "python a.py"
    assert lines[2].startswith("python evaluation/eval_all.py --seeds '0 1' '</td><script>")
    assert "Tracked files differed" in lines[-1]
    keys = [row[0].text for row in tables(section)[0].rows]
    assert "SHA-256 of test_0.json" in keys and "command" not in keys
    made = tables(notes_chapter([results]).sections[0])[0]
    assert {row[0].text: row[2].text for row in made.rows}["AF"] == "\u2193"


def test_rows_of_one_length() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells under 2 columns"):
        table("x", ["a", "b"], [["1"]])
