"""AVQA's questions in their three shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.benchmarks.build import in_test_half, read_annotations
from data.benchmarks.items import Item
from data.benchmarks.recipe import load_recipe
from data.problems import InputError
from tests.unit.data.benchmarks.conftest import Write, avqa, avqacl, published

RECIPE = load_recipe("split_avqa")


def test_the_answer_of_an_official_item_is_the_choice_at_its_position(write: Write) -> None:
    folder = write("train_qa.json", avqa(6, "Come From"), avqa(7, "Why"), avqa(9, "Where"))
    assert read_annotations(RECIPE, folder) == {
        "train": [
            Item("6", "Come_From", "abcdefghij6_000030", "Question 6 about it?", "bird"),
            Item("9", "Where", "abcdefghij9_000030", "Question 9 about it?", "cat"),
        ]
    }


def test_files_of_single_tasks_come_before_those_of_all(write: Write) -> None:
    write("val_qa.json", avqa(1, "Which"))
    write("test_Where.json", published(3))
    folder = write("val_Come_From.json", avqacl(2, "Come From", "dog barking"))
    assert read_annotations(RECIPE, folder) == {
        "val": [
            Item("2", "Come_From", "abcdefghij2", "Question 2 about it?", "highway", labels=("dog barking",))
        ],
        "test": [Item("3", "Where", "abcdefghij3", "Where is it?", "street")],
    }


def test_half_of_the_clips_of_val_are_the_test_where_there_is_none(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write("val_qa.json", *(avqa(number, "Which") for number in range(40)))
    items = read_annotations(RECIPE, folder)
    clips = {split: {item.clip for item in items[split]} for split in items}
    assert clips["val"] and clips["test"] and not clips["val"] & clips["test"]
    assert len(items["val"]) + len(items["test"]) == 40
    assert all(in_test_half(clip) for clip in clips["test"])
    assert "half of the clips of val" in caplog.text


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (avqa(5, "Which", answer=4), "answer: got 4, expected a text or 0 to 3"),
        (avqa(5, "Which", answer=True), "answer: got True"),
        (avqa(5, "Which", multi_choice=[]), "multi_choice: got []"),
        (avqa(5, "Which", multi_choice=["a", None]), "multi_choice: got None, expected a text"),
        (avqa(5, "Which", question_text=" "), "question_text: got ' ', expected a text"),
        (avqa(5, "Which", question_text="Is <Object> it?"), "question: got <Object>"),
        (avqa(5, "Which", question_text="Is <video> it?"), "question: got <video>"),
        (avqa(5, "Which", video_name="../x"), "clip: got '../x', expected the name of a video"),
        ({"id": 5}, "question_type: got None, expected a text"),
        (published(5), "got a sample of no known task; name the file SPLIT_TASK.json"),
        ([5], "got [5], expected an object"),
    ],
)
def test_a_faulty_item_is_named_with_its_file_index_and_id(write: Write, item: Any, message: str) -> None:
    folder = write("train_qa.json", avqa(1, "Where"), item)
    with pytest.raises(InputError) as caught:
        read_annotations(RECIPE, folder)
    [problem] = caught.value.problems
    assert message in problem.message
    assert (problem.source, problem.index) == (folder / "train_qa.json", 1)
    assert problem.id == ("5" if isinstance(item, dict) else None)


def test_a_question_in_the_file_of_another_task_is_a_fault(write: Write) -> None:
    folder = write("train_Where.json", avqacl(2, "Which", "dog barking"))
    with pytest.raises(InputError, match="got 'Which' in the file of 'Where'"):
        read_annotations(RECIPE, folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversations": []}, "conversations: got \\[\\], expected two turns"),
        ({"video": []}, "video: got \\[\\], expected paths"),
        ({"video": ["x.jpg"]}, "expected paths CLIP/frame_001.jpg"),
    ],
)
def test_a_faulty_published_sample_is_named(write: Write, change: dict[str, Any], message: str) -> None:
    folder = write("train_Where.json", published(2) | change)
    with pytest.raises(InputError, match=message):
        read_annotations(RECIPE, folder)


def test_faults_of_all_files_come_together_and_equal_ids_are_one(write: Write) -> None:
    write("val_Where.json", published(1), published(1, "Where else?"))
    folder = write("test_Which.json", {})
    with pytest.raises(InputError) as caught:
        read_annotations(RECIPE, folder)
    messages = [str(problem) for problem in caught.value.problems]
    assert len(messages) == 2
    assert "id '1': the id is also that of another question" in messages[0]
    assert "test_Which.json, index 0: question_type" in messages[1]


@pytest.mark.parametrize("content", [[], {"a": 1}])
def test_a_file_that_is_no_list_of_questions_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "train_qa.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="expected a list of annotated questions"):
        read_annotations(RECIPE, tmp_path)


def test_a_folder_without_annotations_says_what_it_looks_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train_qa.json, val_qa.json, test_qa.json, or {train,val,test}_"):
        read_annotations(RECIPE, tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_annotations(RECIPE, tmp_path / "none")
