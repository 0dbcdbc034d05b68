"""What replay keeps, and what a task is trained on."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.samples import Sample
from methods.replay import Replay, buffer
from train.cells import Cell


def test_the_buffer_is_even_and_full() -> None:
    assert [len(kept) for kept in buffer([50], 10, 0)] == [10]
    assert [len(kept) for kept in buffer([50, 50, 50], 10, 0)] == [4, 3, 3]
    assert [len(kept) for kept in buffer([50, 2, 50], 12, 0)] == [5, 2, 5]  # a small task gives what it has
    assert [len(kept) for kept in buffer([3, 2], 12, 0)] == [3, 2]
    for count, kept in zip([50, 50, 50], buffer([50, 50, 50], 10, 0), strict=True):
        assert kept == sorted(set(kept)) and 0 <= kept[0] and kept[-1] < count


def test_the_buffer_depends_on_the_seed_alone_and_only_forgets() -> None:
    early, late = buffer([50, 50], 10, 3), buffer([50, 50, 50, 50], 10, 3)
    assert late == buffer([50, 50, 50, 50], 10, 3)
    assert late != buffer([50, 50, 50, 50], 10, 4)
    assert late[0] != late[1]  # tasks of one size do not keep the same places
    assert all(set(after) <= set(before) for before, after in zip(early, late, strict=False))


def task_file(folder: Path, name: str, count: int) -> tuple[Path, list[Sample]]:
    path = folder / name
    path.write_text(json.dumps([{}] * count))
    return path, [Sample(f"{name}{n}", n, path, "?", "a", (), {}) for n in range(count)]


def cell(folder: Path, task: int, files: list[Path], method: Replay) -> Cell:
    before = folder / f"expert_task_{task - 1}.pt" if task else None
    place = folder, None, folder
    return Cell("replay", task, (files[task],), *place, before, earlier=tuple(files[:task]), recipe=method)


@pytest.fixture
def shop() -> Any:
    return SimpleNamespace(accelerator=SimpleNamespace(is_main_process=True), config=SimpleNamespace(seed=5))


def test_a_task_is_trained_on_its_own_questions_and_the_kept_ones(tmp_path: Path, shop: Any) -> None:
    method = Replay(replay_samples=4)
    files, samples = zip(*(task_file(tmp_path, name, 6) for name in ("a.json", "b.json")), strict=True)
    first, second = (cell(tmp_path, task, list(files), method) for task in (0, 1))
    assert method.choose(first, samples[0]) == samples[0] and method.plain(first)
    method.finish(first, shop, samples[0])
    assert first.carried == second.inherited == tmp_path / "expert_task_0.replay.json"
    chosen = method.choose(second, [*samples[0], *samples[1]])
    assert chosen[4:] == samples[1]
    assert [s.index for s in chosen[:4]] == buffer([6], 4, 5)[0]
    assert all(s.source == files[0] for s in chosen[:4])
    assert not method.plain(second)
    method.finish(second, shop, chosen)
    assert second.carried is not None
    kept = json.loads(second.carried.read_text())
    assert list(kept.values()) == buffer([6, 6], 4, 5)
    assert method.questions(second, {files[0]: 6, files[1]: 6}) == len(chosen)


def test_an_empty_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="--replay_samples: got 0"):
        Replay(replay_samples=0)
