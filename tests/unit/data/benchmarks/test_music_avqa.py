"""MUSIC-AVQA's questions, as five and as nine tasks."""

from __future__ import annotations

from typing import Any

import pytest

from data.benchmarks.build import read_annotations
from data.benchmarks.music_avqa import fill
from data.benchmarks.recipe import load_recipe
from data.problems import InputError
from tests.unit.data.benchmarks.conftest import Write, music

NAMES = ("split_music_avqa", "split_music_avqa_five", "split_music_avqa_nine")


def test_slots_are_filled_in_order() -> None:
    assert fill("Is the <FL> <Object> <FL>?", ["first", "a<b>", "last"]) == "Is the first a<b> last?"
    with pytest.raises(ValueError, match="got 1 values for the 2 slots of 'a <B> <C>', expected one each"):
        fill("a <B> <C>", ["x"])


def test_a_task_is_chosen_by_the_type_fields(write: Write) -> None:
    folder = write(
        "avqa-test.json",
        music(1, "Audio", "Counting"),
        music(2, "Audio-Visual", "Counting"),
        music(3, "Visual", "Location"),
        music(4, "Audio-Visual", "Temporal", question_deleted=1),
    )
    tasks = {}
    for name in NAMES:
        [items] = read_annotations(load_recipe(name), folder).values()
        tasks[name] = [item.task for item in items]
        assert {item.question for item in items} == {
            "Is the flute on the left louder than the acoustic_guitar?"
        }
        assert {item.answer for item in items} == {"yes"}
    assert tasks == {
        "split_music_avqa": ["Counting"],
        "split_music_avqa_five": ["Counting", "Counting", "Location"],
        "split_music_avqa_nine": ["Audio_Counting", "Audio-Visual_Counting", "Visual_Location"],
    }


def test_version_two_has_questions_without_an_id_and_clips_of_other_names(write: Write) -> None:
    new = music(7, "Audio", "Counting", video_id="eGmXU1Tpc-M_flip")
    del new["question_id"]
    folder = write("test_balance.json", music(1, "Audio", "Counting", video_id="esa00000446"), new)
    [[first, second]] = read_annotations(load_recipe("split_music_avqa_five"), folder).values()
    assert (first.id, first.clip, first.synthetic) == ("1", "esa00000446", True)
    assert (second.id, second.clip, second.synthetic) == ("at1", "eGmXU1Tpc-M_flip", False)


def test_a_question_annotated_twice_keeps_both_answers(write: Write) -> None:
    folder = write(
        "avqa-val.json",
        *(music(3, "Audio", "Counting", anser=answer) for answer in ("one", "two", "one")),
    )
    [items] = read_annotations(load_recipe("split_music_avqa_five"), folder).values()
    assert [(item.id, item.answer) for item in items] == [("3", "one"), ("3-2", "two"), ("3-3", "one")]


def test_files_per_task_have_the_instruments_as_labels(write: Write) -> None:
    folder = write("test_Temporal.json", music(3, "Audio-Visual", "Temporal", label=["flute", "violin"]))
    [[item]] = read_annotations(load_recipe("split_music_avqa"), folder).values()
    assert item.labels == ("flute", "violin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "Audio"}, "type: got 'Audio', expected a JSON list of texts"),
        ({"type": '["Audio", "Smell"]'}, "expected one of Audio, Visual, Audio-Visual and one of Counting"),
        ({"type": '["Audio", "Temporal"]'}, "type: got Audio Temporal, which is none of the nine pairs"),
        ({"templ_values": "[]"}, "templ_values: got 0 values for the 3 slots"),
        ({"templ_values": '["flute", 3, "x"]'}, "expected a JSON list of texts"),
        ({"anser": None}, "anser: got None, expected a text"),
        ({"question_id": [1]}, "question_id: got [1], expected a number or a text"),
        ({"label": 3}, "label: got 3, expected a text or a list of texts"),
    ],
)
def test_a_faulty_item_is_named(write: Write, change: dict[str, Any], message: str) -> None:
    folder = write("avqa-test.json", music(1, "Audio", "Counting"), music(2, "Visual", "Location") | change)
    with pytest.raises(InputError) as caught:
        read_annotations(load_recipe("split_music_avqa_nine"), folder)
    [problem] = caught.value.problems
    assert message in problem.message and problem.index == 1


def test_two_versions_in_one_folder_are_a_fault(write: Write) -> None:
    write("avqa-test.json", music(1, "Audio", "Counting"))
    folder = write("test_bias.json", music(1, "Audio", "Counting"))
    with pytest.raises(InputError, match="got avqa-test.json and test_bias.json for test, expected one"):
        read_annotations(load_recipe("split_music_avqa_five"), folder)


def test_a_question_in_the_file_of_another_task_is_a_fault(write: Write) -> None:
    folder = write("test_Temporal.json", music(3, "Audio-Visual", "Counting"))
    with pytest.raises(InputError, match="got 'Audio-Visual, Counting' in the file of 'Temporal'"):
        read_annotations(load_recipe("split_music_avqa"), folder)
