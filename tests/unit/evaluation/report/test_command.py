"""The command: where it writes, what its flags do, what it refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.report.__main__ import main, parser

FILES = {"report.html", "report.md", "report.tex"}


def run(*arguments: object) -> None:
    main(parser().parse_args(list(map(str, arguments))))


def test_where_it_writes(
    write_results: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write_results("a"), write_results("b")
    run(first)
    assert {path.name for path in first.iterdir()} >= FILES
    monkeypatch.chdir(tmp_path)
    run(first, second)
    run(second / "summary.json", "--output", "elsewhere/deep")
    assert {path.name for path in (tmp_path / "report").iterdir()} == FILES
    assert {path.name for path in (tmp_path / "elsewhere" / "deep").iterdir()} == FILES


def test_flags(write_results: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_results()

    def page(*flags: object) -> str:
        run(folder, "--output", tmp_path / "out", *flags)
        return (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

    assert page().count("<article") == 4 and "data:image/jpeg" in page()
    assert page("--examples", 2).count("<article") == 2
    assert "none were asked for" in page("--examples", 0)
    assert "data:image/jpeg" not in page("--media", "no")
    with pytest.raises(ValueError, match="--examples: got -1, expected 0 or more"):
        page("--examples", -1)
    with pytest.raises(ValueError, match="no such file"):
        run(tmp_path / "nowhere", "--output", tmp_path / "unmade")
    assert not (tmp_path / "unmade").exists()
