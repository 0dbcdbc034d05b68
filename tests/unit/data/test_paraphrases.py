"""data/paraphrases: the sets are complete and well formed, and belong to their benchmarks."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from data.benchmarks.recipe import load_recipe
from data.paraphrases import HALVES, benchmark_rewordings, question_hash, read_rewordings


@pytest.mark.parametrize("benchmark", ["split_avqa", "split_music_avqa_five"])
def test_every_task_has_many_in_every_part(benchmark: str) -> None:
    items = benchmark_rewordings(benchmark)
    keys = {task.key for task in load_recipe(benchmark).tasks}
    assert {item.task for item in items} == keys
    assert min(Counter(item.task for item in items).values()) >= 55
    assert {item.half for item in items} == set(HALVES)
    count = Counter((item.task, item.half) for item in items)
    assert min(count[key, half] for key in keys for half in HALVES) >= 18
    halves = defaultdict(set)
    for item in items:
        halves[item.question] |= {item.half} & {"dev", "test"}
        assert item.text.isascii() and item.text == " ".join(item.text.split())
        assert len(item.question) == 12
    assert all(len(of) <= 1 for of in halves.values())  # a question and all its rewordings: one half


def test_originals_are_questions_of_the_benchmark(shared_data: Path) -> None:
    folder = shared_data / "annotations" / "avqa"
    if not folder.is_dir():
        pytest.skip("no real questions")
    asked: dict[str, Counter[str]] = defaultdict(Counter)
    texts = set()
    for task in load_recipe("split_avqa").tasks:
        for sample in json.loads((folder / f"test_{task.key}.json").read_text()):
            text = sample["conversations"][0]["value"].split("\n")[-1]
            asked[question_hash(text)][task.key] += 1
            texts.add(text.lower())
    for item in benchmark_rewordings("split_avqa"):
        assert asked[item.question].most_common(1)[0][0] == item.task
        assert item.text.lower() not in texts


def test_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no rewordings of 'x'; there are split_avqa"):
        benchmark_rewordings("x")
    path = tmp_path / "set.json"
    entry = {"task": "A", "question": "0" * 12, "half": HALVES[0], "rewordings": ["Why?"]}
    for content, message in (
        ([], "expected an object"),
        ({"questions": [{}]}, "entry 0 lacks 'task'"),
        ({"questions": [{**entry, "half": "all"}]}, "entry 0: half 'all'"),
        ({"questions": [entry, entry]}, "more than once"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            read_rewordings(path)
