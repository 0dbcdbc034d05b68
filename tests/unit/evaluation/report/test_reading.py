"""What the report reads: bad input stops it before the work, what may be missing is said."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from data.files import seal, write_sums
from evaluation.report.build import build_document
from evaluation.report.document import Text
from evaluation.report.reading import Results, read_all_results
from evaluation.report.writing import write_pages

Write = Callable[..., Path]


def gaps(results: Results) -> dict[str, str]:
    """Section -> what it says is missing."""
    chapter = build_document([results]).chapters[0]
    return {
        section.key: block.text
        for section in chapter.sections
        for block in section.blocks
        if isinstance(block, Text) and block.kind == "gap"
    }


def test_bad_input_is_told_at_once(write_results: Write, tmp_path: Path) -> None:
    good = write_results()
    empty, damaged, other = tmp_path / "empty", tmp_path / "damaged", tmp_path / "x" / "AVQA"
    for folder in (empty, damaged, other):
        folder.mkdir(parents=True)
    (damaged / "summary.json").write_bytes((good / "summary.json").read_bytes()[:500])
    (other / "summary.json").write_bytes((good / "summary.json").read_bytes())
    with pytest.raises(ValueError) as caught:
        write_pages([good, empty, damaged, other], tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and not (tmp_path / "out").exists()
    assert f"{empty}/summary.json: no such file; evaluate first" in lines[0]
    assert f"{damaged}/summary.json: not readable as JSON" in lines[1]
    assert f"{other}: named 'AVQA' as {good} is; rename one of the two" in lines[2]


def test_a_file_of_another_shape(write_results: Write) -> None:
    file = write_results() / "summary.json"
    summary = json.loads(file.read_text())
    summary["methods"]["blind"]["matrix"][1] = [1.0]
    file.write_text(json.dumps(summary))
    with pytest.raises(ValueError, match=r"method 'blind' has no accuracy matrix of 2 x 2 cells; evaluate"):
        read_all_results([file.parent])
    file.write_text(json.dumps(summary | {"provenance": [1]}))
    with pytest.raises(ValueError, match="tasks, methods or provenance are not as"):
        read_all_results([file.parent])
    for content in ("[1]", "{}", '{"tasks": 3}'):
        file.write_text(content)
        with pytest.raises(ValueError, match="no summary of an evaluation, benchmark"):
            read_all_results([file.parent])


def test_everything_there(write_results: Write) -> None:
    [results] = read_all_results([write_results()])
    assert [len(rows) for rows in results.answers] == [2, 2] and results.costs and results.anchor_map
    assert [len(group) for group in (*results.questions.train, *results.questions.test)] == [2] * 4
    assert results.questions.changed == ("test_0.json",)
    found = gaps(results)
    assert found.keys() == {"results", "leakage", "provenance"}
    assert "changed since the evaluation: test_0.json" in found["leakage"]


def test_a_summary_alone(write_results: Write, tmp_path: Path) -> None:
    """A summary.json kept elsewhere makes a report too; every part that needs more says so."""
    summary = json.loads((write_results() / "summary.json").read_text())
    summary["provenance"]["benchmark_file"] = str(tmp_path / "gone.json")
    (tmp_path / "kept.json").write_text(json.dumps(summary))
    [results] = read_all_results([tmp_path / "kept.json"])
    assert (results.name, results.folder) == ("kept", None)
    found = gaps(results)
    assert found.keys() == {
        "results",
        "scoring",
        "modalities",
        "map",
        "cost",
        "examples",
        "leakage",
        "provenance",
    }
    assert "gone.json: no such file" in found["leakage"]
    assert "a summary file alone was given" in found["map"]
    assert len(write_pages([tmp_path / "kept.json"], tmp_path / "out")) == 3


def test_the_first_seed_may_have_a_folder_of_its_own(write_results: Write) -> None:
    folder = write_results()
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"seeds": [3]}))
    (folder / "seed_3").mkdir()
    for name in ("anchor_map.json", "task0_x_results.json", "task1_x_results.json"):
        (folder / name).rename(folder / "seed_3" / name)
    [results] = read_all_results([folder])
    assert results.anchor_map and len(results.answers) == 2


def test_a_benchmark_of_other_tasks_is_not_taken(write_results: Write) -> None:
    file = write_results() / "summary.json"
    summary = json.loads(file.read_text())
    summary["tasks"] = ["a", "b"]
    file.write_text(json.dumps(summary))
    [results] = read_all_results([file.parent])
    assert "names other tasks than the evaluation had" in gaps(results)["leakage"]
    assert len(results.answers) == 2  # found by their names


@pytest.mark.parametrize(
    ("name", "old", "new", "section", "anew"),
    [
        ("costs.json", "1234", "1235", "cost", "an evaluation (bash eval_all_tasks.sh) writes it anew"),
        ("anchor_map.json", "0.5", "0.7", "map", "an evaluation (bash eval_all_tasks.sh) writes it anew"),
        ("judged.json", "100.0", "101.0", "scoring", "scripts/judge_answers.py with --json writes it anew"),
    ],
)
def test_a_changed_byte_beside_the_summary_is_never_shown(
    write_results: Write,
    caplog: pytest.LogCaptureFixture,
    name: str,
    old: str,
    new: str,
    section: str,
    anew: str,
) -> None:
    file = write_results() / name
    file.write_text(seal(json.loads(file.read_text()), ascii_only=True))
    [results] = read_all_results([file.parent])
    assert section not in gaps(results) and not caplog.records
    file.write_text(file.read_text().replace(old, new))
    [results] = read_all_results([file.parent])
    wrong = "damaged (the checksum does not fit, a byte of it has changed)"
    assert [record.getMessage() for record in caplog.records] == [f"{file}: {wrong}; {anew}; it is left out"]
    assert f"{name} is not there or damaged" in gaps(results)[section]


@pytest.mark.parametrize("place", [".", "seed_3"])
def test_what_changed_since_the_evaluation_is_not_used(
    write_results: Write, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    folder = write_results()
    summary, answers = folder / "summary.json", folder / place / "task1_x_results.json"
    if place != ".":
        summary.write_text(json.dumps(json.loads(summary.read_text()) | {"seeds": [3]}))
        answers.parent.mkdir()
        for file in folder.glob("task*_results.json"):
            file.rename(answers.with_name(file.name))
    write_sums(folder, [summary, *folder.glob("**/task*_results.json")])
    assert len(read_all_results([folder])[0].answers) == 2
    answers.write_text(answers.read_text().replace("lake", "lakf"))
    assert not read_all_results([folder])[0].answers
    assert f"{answers}: changed since SHA256SUMS in {folder} was written" in caplog.text
    summary.write_text(summary.read_text().replace("90.0", "91.0"))
    with pytest.raises(ValueError, match=r"summary\.json: changed since SHA256SUMS in .*; evaluate again"):
        read_all_results([folder])


def test_damaged_beside_the_summary(write_results: Write, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_results()
    for name in ("anchor_map.json", "costs.json", "judged.json", "task1_x_results.json"):
        (folder / name).write_text("{")
    with caplog.at_level(logging.WARNING):
        [results] = read_all_results([folder])
    assert len(caplog.records) == 4 and {"map", "scoring", "cost", "examples"} <= gaps(results).keys()
