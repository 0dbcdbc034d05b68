"""Answers survive a kill and are found again by what they depend on."""

import os
from pathlib import Path

import pytest

from data.files import only_run_for
from evaluation import answer_book
from evaluation.anchor_moe import AnchorMoE
from evaluation.answer_book import AnswerBook, answer_key


def test_answers_come_back_after_a_kill(tmp_path: Path) -> None:
    book = AnswerBook(tmp_path / "deep" / "answers.jsonl")
    book.add("a", "a dog\nbarks")
    book.add("a", "ignored: known already")
    with (tmp_path / "deep" / "answers.jsonl").open("ab") as file:
        file.write(b'{"key": "b", "te')
    again = AnswerBook(tmp_path / "deep" / "answers.jsonl")
    assert len(again) == 1
    assert again.get("a") == "a dog\nbarks"
    assert again.get("b") is None


def test_a_key_depends_on_every_part() -> None:
    parts = {"sample": "s", "expert": "e", "max_new_tokens": 8}
    keys = {answer_key(**{**parts, name: "other"}) for name in parts} | {answer_key(**parts)}
    assert len(keys) == 4


def test_a_damaged_answer_is_not_used(tmp_path: Path) -> None:
    book = AnswerBook(tmp_path / "answers.jsonl")
    book.add("a", "yes")
    book.add("b", "no")
    book.settle(["a", "b"])
    book.path.write_text(book.path.read_text().replace("yes", "yer"))
    again = AnswerBook(book.path)
    assert (again.get("a"), again.get("b")) == (None, "no")


def test_processes_that_share_a_book_do_not_meddle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_book, "PATIENCE", 0.1)
    path = tmp_path / "answers.jsonl"
    one, two = AnswerBook(path, shared=True), AnswerBook(path, shared=True)
    one.add("a", "yes")
    two.add("b", "no")
    with only_run_for(path):
        for attempt in (lambda: one.settle(["a"]), lambda: AnswerBook(path, shared=True)):
            with pytest.raises(ValueError, match=r"answers\.jsonl: another run is writing here"):
                attempt()
        assert AnswerBook(path).get("b") == "no"  # of a command that holds it itself
    one.settle(["a"])
    two.add("c", "two")  # after its begun answers were settled by the first
    two.settle(["b", "c"])
    again = AnswerBook(path, shared=True)
    assert [again.get(key) for key in "abc"] == ["yes", "no", "two"] and again.is_settled("c")


def test_a_shared_book_in_a_folder_that_cannot_be_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert len(AnswerBook(tmp_path / "answers.jsonl", shared=True)) == 0
    assert not list(tmp_path.iterdir())


def test_the_python_interface_shares_the_answers_of_a_store(
    tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_book, "PATIENCE", 0.1)
    nothing = {"experts": tmp_path / "none", "anchors": tmp_path / "none", "store": tmp_path}
    with (
        only_run_for(tmp_path / "answers.jsonl"),
        pytest.raises(ValueError, match="another run is writing here"),
    ):
        AnchorMoE.load(repo_root / "checkpoints", **nothing)
    with pytest.raises(ValueError, match="no expert_task_K.pt"):
        AnchorMoE.load(repo_root / "checkpoints", **nothing)
