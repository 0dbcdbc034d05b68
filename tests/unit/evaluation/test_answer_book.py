"""Answers survive a kill and are found again by what they depend on."""

from pathlib import Path

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
