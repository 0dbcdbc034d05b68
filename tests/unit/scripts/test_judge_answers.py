"""scripts/judge_answers.py: the columns by hand, and the command's messages."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data.files import unseal
from data.manners import main_command
from evaluation.similarity import Similarity
from scripts.judge_answers import main, parser
from tests.unit.evaluation.judge_server import sameness, serving


def write_results(path: Path, pairs: Sequence[tuple[str, str | None]]) -> Path:
    """A results file of expected and given answers."""
    rows = [
        {
            "id": str(number),
            "conversations": [
                {"from": "human", "value": "<video>\nWhat is it?"},
                {"from": "gpt", "value": wanted},
            ],
            "video": ["f.jpg"],
            "text": text,
        }
        for number, (wanted, text) in enumerate(pairs)
    ]
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def results(tmp_path: Path) -> list[str]:
    first = [("dog", "Dog."), ("train", "railway"), ("two", "2"), ("cat", "a cat there"), ("cow", "")]
    second = [("yes", "yes"), ("no", "yes")]
    paths = [
        write_results(tmp_path / f"task{i}_results.json", found) for i, found in enumerate((first, second))
    ]
    return [str(path) for path in paths]


def test_columns_side_by_side(
    tmp_path: Path, results: list[str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("SOME_KEY", "secret")
    (tmp_path / "x.aliases.json").write_text('{"train": ["railway"]}')
    flags = [
        "--model",
        "some-judge",
        "--key_env",
        "SOME_KEY",
        "--quiet",
        "--json",
        str(tmp_path / "out.json"),
    ]
    flags += ["--aliases", str(tmp_path / "x.aliases.json"), "--price_in", "1000", "--price_out", "1000"]
    with serving(sameness) as world:
        main(parser().parse_args([*results, "--endpoint", world.url, *flags]))
    assert {headers["Authorization"] for _, headers, _ in world.asked} == {"Bearer secret"}
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    # exact: dog; normalised: dog, railway, 2; judged: dog and a cat there. Agreed on all but the cat:
    # p_o = 0.8, p_e = 0.2 * 0.4 + 0.8 * 0.6 = 0.56, kappa = 0.24 / 0.44
    assert [results[0], "5", "1", "20.00", "60.00", "40.00", "80.00", "0.55", "0"] in lines
    assert [results[1], "2", "0", "50.00", "50.00", "50.00", "100.00", "1.00", "0"] in lines
    assert ["mean", "35.00", "55.00", "45.00"] in lines
    assert "6 replies, 0 known before" in printed and "600 tokens in, 42 out, cost 0.6420" in printed
    assert "secret" not in printed
    stored, sealed = unseal((tmp_path / "out.json").read_bytes())
    assert sealed
    assert stored["rows"][0]["kappa"] == pytest.approx(0.24 / 0.44)
    assert len((tmp_path / "judged.jsonl").read_text().splitlines()) == 6


def small_similarity(folder: Path, level: float) -> Similarity:
    """A railway is 0.9 like a train, "cat there" 0.5 like a cat, yes 0.5 like no."""

    def unit(text: str) -> np.ndarray:
        angle = np.arccos({"train": 0.9, "cat": 0.5, "no": 0.5}.get(text, 1.0))
        return np.array([np.cos(angle), np.sin(angle)])

    return Similarity(folder, "f" * 64, level, unit)


def test_similarity_needs_no_judge(
    tmp_path: Path, results: list[str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.judge_answers.load_similarity", small_similarity)
    flags = ["--similarity", "enc", "--json", str(tmp_path / "out.json")]
    main(parser().parse_args([*results, *flags]))
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    # exact: dog; similar: dog, train at 0.9 and 2, but not the cat at 0.5; agreed on all but train and 2:
    # p_o = 0.6, p_e = 0.6 * 0.2 + 0.4 * 0.8 = 0.44, kappa = 0.16 / 0.56
    assert lines[0] == ["file", "n", "failed", "exact", "normalised", "similar", "agreement", "kappa"]
    assert [results[0], "5", "1", "20.00", "40.00", "60.00", "60.00", "0.29"] in lines
    assert [results[1], "2", "0", "50.00", "50.00", "50.00", "100.00", "1.00"] in lines
    assert ["mean", "35.00", "45.00", "55.00"] in lines
    assert "similarity: enc (ffffffffffffffff), right from a cosine of 0.8 on" in printed
    assert "of answers that do not match: median 0.50, 90 % 0.82, 99 % 0.89, highest 0.90" in printed
    stored, sealed = unseal((tmp_path / "out.json").read_bytes())
    assert sealed
    assert stored["similarity"]["level"] == 0.8 and stored["similarity"]["encoder"] == "enc"
    assert stored["rows"][0]["similar_kappa"] == pytest.approx(0.16 / 0.56)
    assert stored["rows"][0]["judged"] is None and "judge" not in stored
    assert not (tmp_path / "judged.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nothing to score by"),
        (["--model", "m"], "one was given without the other"),
        (["--similarity", "nowhere"], "nowhere is no folder"),
    ],
)
def test_impossible_choices_are_refused(results: list[str], flags: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        main(parser().parse_args([*results, *flags]))


def test_a_file_without_answers_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_results(tmp_path / "a.json", [("dog", "dog")])
    rows = json.loads(path.read_text())
    del rows[0]["text"]
    path.write_text(json.dumps(rows))
    flags = ["--endpoint", "http://127.0.0.1:1/v1", "--model", "m"]
    monkeypatch.setattr("sys.argv", ["judge_answers.py", str(path), *flags])
    monkeypatch.setattr("data.manners.set_up_logging", lambda: None)  # it would outlive the test
    assert main_command(parser(), main) == 1
    assert capsys.readouterr().err.startswith(
        f"judge_answers.py: error: {path}, index 0, id '0': no answer under 'text'"
    )
