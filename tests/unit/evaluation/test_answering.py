"""Answers are the same bytes on any number of processes, killed or not: here processes are threads, and an
answer names the batch that it was given in."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evaluation.answer_book import AnswerBook
from evaluation.answering import Answerer, Generation, Request
from evaluation.ranks import Ranks

QUESTIONS = 23
BATCH = 4


@dataclass(frozen=True)
class Thread(Ranks):
    """One of several threads in place of processes."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))

    def wait(self) -> None:
        self.barrier.wait(10)


class StubInputs:
    base_identity = "base"

    def identity(self) -> dict[str, Any]:
        return {}

    def sample_key(self, sample: Any, *, without_media: bool = False) -> str:
        return str(sample.id)

    def prompt_length(self, sample: Any, *, without_media: bool = False) -> int:
        return int(sample.id) * 7 % 5


class StubAnswerer(Answerer):
    """Dies in the place of its batch number `dies_at`, half of it written."""

    dies_at: int | None = None

    def _generate(self, requests: Sequence[Request]) -> list[str]:
        names = ",".join(str(request.sample.id) for request in requests)
        digest = hashlib.sha256(names.encode()).hexdigest()
        texts = [f"{request.sample.id} in {digest}" for request in requests]
        if self.dies_at == 0:
            self.book.add(self.key(requests[0]), texts[0])
            with self.book._begun_file(self.book.ranks.rank).open("ab") as file:
                file.write(b'{"key": "to')
            raise KeyboardInterrupt
        self.dies_at = None if self.dies_at is None else self.dies_at - 1
        return texts


def requests(count: int = QUESTIONS) -> list[Request]:
    return [Request(SimpleNamespace(id=number), number % 3) for number in range(count)]  # type: ignore[arg-type]


def test_forked_processes_give_the_same_bytes(tmp_path: Path) -> None:
    def answer(name: str, jobs: int) -> tuple[list[str], bytes]:
        book = AnswerBook(tmp_path / name / "answers.jsonl")
        inputs: Any = StubInputs()
        answerer = StubAnswerer(
            None, inputs, book, Generation(batch_size=BATCH, progress=False, jobs=jobs), {}
        )  # type: ignore[arg-type]
        texts = answerer.answer(requests())
        assert [path.name for path in book.path.parent.iterdir()] == ["answers.jsonl"]
        return texts, book.path.read_bytes()

    assert answer("alone", 0) == answer("two", 2) == answer("three", 3)


def evaluate(
    folder: Path, world: int, *, dies: dict[int, int] | None = None, count: int = QUESTIONS
) -> list[str]:
    """Answer all questions on `world` threads, of which some die at a batch; the first one's texts."""
    barrier, texts = threading.Barrier(world), {}

    def work(rank: int) -> None:
        ranks = Thread(rank, world, barrier)
        try:
            book = AnswerBook(folder / "answers.jsonl", ranks)
            answerer = StubAnswerer(None, StubInputs(), book, Generation(8, BATCH, progress=False), {})  # type: ignore[arg-type]
            answerer.dies_at = (dies or {}).get(rank)
            texts[rank] = answerer.answer(requests(count))
        except (KeyboardInterrupt, threading.BrokenBarrierError):
            barrier.abort()  # as a launcher ends all

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bool(dies) or all(texts[rank] == texts[0] for rank in range(world))
    return texts.get(0, [])


@pytest.fixture
def wanted(tmp_path: Path) -> tuple[bytes, list[str]]:
    """What one process that nobody kills writes and answers."""
    texts = evaluate(tmp_path / "wanted", 1)
    return (tmp_path / "wanted" / "answers.jsonl").read_bytes(), texts


@pytest.mark.parametrize(
    "launches",
    [
        [(2, {})],
        [(3, {})],
        [(1, {0: 3}), (1, {})],
        [(2, {0: 1}), (2, {})],
        [(2, {1: 2}), (2, {0: 0}), (2, {})],
        [(2, {1: 1}), (1, {})],
        [(3, {2: 0}), (2, {0: 1, 1: 0}), (1, {0: 2}), (3, {})],
    ],
)
def test_the_bytes_are_those_of_one_process(
    launches: list[tuple[int, dict[int, int]]], tmp_path: Path, wanted: tuple[bytes, list[str]]
) -> None:
    for world, dies in launches:
        texts = evaluate(tmp_path / "run", world, dies=dies)
    assert ((tmp_path / "run" / "answers.jsonl").read_bytes(), texts) == wanted
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["answers.jsonl"]


def test_what_is_settled_is_not_asked_again(tmp_path: Path) -> None:
    evaluate(tmp_path, 1, count=10)
    before = (tmp_path / "answers.jsonl").read_bytes()
    evaluate(tmp_path, 2, dies={0: 0}, count=10)  # would die if it had anything to answer
    assert (tmp_path / "answers.jsonl").read_bytes() == before
    evaluate(tmp_path, 2)
    after = (tmp_path / "answers.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == QUESTIONS


def test_answers_to_other_questions_outlive_a_kill(tmp_path: Path) -> None:
    evaluate(tmp_path, 2, dies={0: 2, 1: 2})
    evaluate(tmp_path, 1, count=3)
    lines = (tmp_path / "answers.jsonl").read_bytes().splitlines()
    assert len(lines) == len(set(lines)) > 3
