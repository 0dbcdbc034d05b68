"""The two commands and docs/benchmarks.md, whose commands and code run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import scripts.extract_frames as extract_frames
import scripts.make_benchmark as make_benchmark
from data.benchmark import read_benchmark
from data.benchmarks.build import Choices, build
from data.benchmarks.recipe import load_recipe, recipe_names
from data.media_check import check_media
from data.samples import read_samples
from tests.unit.data.benchmarks.conftest import published
from tests.unit.data.conftest import Files

COMMANDS = {"make_benchmark.py": make_benchmark, "extract_frames.py": extract_frames}
KINDS = ("Come_From", "Happening", "Where", "Which")


@pytest.fixture
def page(repo_root: Path) -> str:
    return (repo_root / "docs" / "benchmarks.md").read_text()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with annotations and videos of four clips."""
    monkeypatch.chdir(tmp_path)
    files = Files(tmp_path)
    for number, kind in enumerate(KINDS):
        files.samples(published(number), name=f"annotations/test_{kind}.json")
        files.video(f"videos/abcdefghij{number}.mp4", range(0, 240, 20), files.tone(3.0))
    return tmp_path


def run(line: str) -> None:
    """One command line, in this process."""
    interpreter, script, *words = shlex.split(line)
    assert interpreter == "python" and script.startswith("scripts/")
    command = COMMANDS[script.removeprefix("scripts/")]
    command.main(command.make_parser().parse_args(words))


def test_the_commands_of_the_page_make_a_benchmark_with_media(
    page: str, work: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    [block] = re.findall(r"<!-- commands.*?-->\n```bash\n(.*?)```", page, re.S)
    for line in block.splitlines():
        run(line)
    printed = capsys.readouterr().out
    assert "BENCHMARK=benchmarks/split_avqa/split_avqa.json" in printed
    assert "4 clips below benchmarks/split_avqa/media" in printed
    assert "task Where, test: 1 questions, known are 749" in caplog.text
    benchmark = read_benchmark("benchmarks/split_avqa/split_avqa.json")
    for path in benchmark.files("test"):
        assert check_media(read_samples(path, media_root=benchmark.media_root)) == []


def test_the_page_lists_every_benchmark_with_its_known_counts(page: str) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d, ]+) \|$", page, re.M))
    assert rows.keys() == set(recipe_names())
    for name, counts in rows.items():
        assert tuple(map(int, counts.split(", "))) == load_recipe(name).known["test"]


def test_the_flags_of_the_page_exist(page: str) -> None:
    known = set()
    for command in COMMANDS.values():
        known |= set(re.findall(r"--\w+", command.make_parser().format_help()))
    assert set(re.findall(r"--\w+", page)) <= known | {"--missing_media"}


def test_the_recipe_of_the_page_makes_a_benchmark(page: str, tmp_path: Path) -> None:
    [block] = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/benchmarks.md", "exec"), names)
    items = [
        {"id": n, "kind": k, "clip": f"c{n}", "q": "Which?", "a": "red"}
        for n, k in enumerate(("color", "place"))
    ]
    (tmp_path / "train.json").write_text(json.dumps(items))
    counts = build(names["RECIPE"], "mine", tmp_path, tmp_path / "out", Choices())
    assert [(count.task, count.written) for count in counts] == [("Color", 1), ("Place", 1)]
    assert read_benchmark(tmp_path / "out" / "mine.json").name == "My benchmark"


def test_failed_clips_are_listed_and_left_out_afterwards(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = json.loads((work / "annotations" / "test_Where.json").read_text())
    (work / "annotations" / "test_Where.json").write_text(json.dumps([*items, published(9)]))
    make = "python scripts/make_benchmark.py split_avqa --annotations annotations --out b"
    extract = "python scripts/extract_frames.py --benchmark b/split_avqa.json --videos videos"
    run(make)
    with pytest.raises(ValueError, match="1 of 5 clips failed") as caught:
        run(f"{extract} --failed failed.txt")
    assert (work / "failed.txt").read_text().startswith("abcdefghij9: got no video below videos")
    assert "abcdefghij9: got no video" in str(caught.value)
    capsys.readouterr()
    run(f"{make} --drop_missing")
    assert re.search(r"Where +1 -1 \(known 749\)", capsys.readouterr().out)
    run(extract)
    with pytest.raises(ValueError, match="--jobs: got 0"):
        run(f"{extract} --jobs 0")
