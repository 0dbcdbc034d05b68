"""data_sample/ is what its script makes, reads with the data pipeline, and is small."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.benchmark import read_benchmark
from data.samples import read_samples
from scripts.make_sample_data import plan_sample_data, write_clip
from scripts.tiny_world.questions import TASKS
from scripts.tiny_world.sampling import SPLITS

REMAKE = "run python scripts/make_sample_data.py"


@pytest.fixture(scope="module")
def folder(repo_root: Path) -> Path:
    return repo_root / "data_sample"


def test_question_files_are_what_the_script_plans(folder: Path) -> None:
    files, clips = plan_sample_data(seed=0)
    for name, value in files.items():
        assert json.loads((folder / name).read_text()) == value, (
            f"{name}: run python scripts/make_sample_data.py"
        )
    planned = {path for clip in clips for field in clip.media.values() for path in _as_list(field)}
    present = {
        path.relative_to(folder).as_posix() for path in (folder / "media").rglob("*") if path.is_file()
    }
    assert present == planned


def _as_list(field: str | list[str]) -> list[str]:
    return [field] if isinstance(field, str) else field


def test_pictures_are_what_the_script_draws(folder: Path, tmp_path: Path) -> None:
    clip = plan_sample_data(seed=0)[1][5]
    write_clip(tmp_path, clip)
    for path in clip.media["video"]:
        old, new = (np.asarray(Image.open(root / path), np.int16) for root in (folder, tmp_path))
        assert np.abs(old - new).mean() < 3, f"{path}: {REMAKE}"


def test_every_file_reads_with_the_data_pipeline(folder: Path) -> None:
    benchmark = read_benchmark(folder / "avqa.json")
    assert [task.name for task in benchmark.tasks] == list(TASKS)
    for task in benchmark.tasks:
        for plan in SPLITS:
            samples = read_samples(getattr(task, plan.name))
            assert len(samples) == plan.questions
            assert all([media.kind for media in sample.media] == ["video", "audio"] for sample in samples)


def test_splits_share_no_clip_and_tasks_do(folder: Path) -> None:
    uses: dict[str, Counter] = {}
    for plan in SPLITS:
        uses[plan.name] = Counter(
            str(item["video"])
            for task in read_benchmark(folder / "avqa.json").tasks
            for item in json.loads(getattr(task, plan.name).read_text())
        )
    assert not uses["train"].keys() & (uses["val"].keys() | uses["test"].keys())
    assert not uses["val"].keys() & uses["test"].keys()
    assert max(uses["train"].values()) == len(TASKS)


def test_some_clips_are_video_files_and_sound_comes_in_two_formats(folder: Path) -> None:
    suffixes = Counter(path.suffix for path in (folder / "media").rglob("*"))
    assert suffixes[".mp4"] >= 20 and suffixes[".flac"] >= 5 and suffixes[".ogg"] > 300


def test_it_is_small(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 12_000_000


def test_the_question_alone_gives_away_little_but_something(folder: Path) -> None:
    """Guessing from the wording is right in 8 to 35 percent, so that the blind row means something."""
    for task in read_benchmark(folder / "avqa.json").tasks:
        pairs = {
            split: [(s.question_text, s.answer) for s in read_samples(path)]
            for split, path in (("train", task.train), ("test", task.test))
        }
        guesses: dict[str, Counter] = {}
        for question, answer in pairs["train"]:
            guesses.setdefault(question, Counter())[answer] += 1
        right = [guesses[q].most_common(1)[0][0] == a for q, a in pairs["test"]]
        assert 0.08 <= np.mean(right) <= 0.35, task.name
