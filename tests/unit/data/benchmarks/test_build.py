"""From annotations to a benchmark folder that the project reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from data.benchmark import read_benchmark
from data.benchmarks.build import Choices, Count, build, differences, table
from data.benchmarks.recipe import load_recipe, recipe_names
from data.problems import InputError
from data.samples import read_samples
from evaluation.alias_files import alias_file, read_aliases
from evaluation.scoring.answers import is_correct
from evaluation.scoring.normalised import Aliases
from tests.unit.data.benchmarks.conftest import Write, avqa, avqacl, music, published

KINDS = ("Come_From", "Happening", "Where", "Which")


def published_tasks(write: Write) -> Path:
    for number, kind in enumerate(KINDS):
        folder = write(f"test_{kind}.json", published(number))
    return folder


def test_every_benchmark_has_a_recipe_that_fits_itself() -> None:
    names = recipe_names()
    assert set(names) >= {"split_avqa", "split_music_avqa", "split_music_avqa_five", "split_music_avqa_nine"}
    titles = set()
    for name in names:
        recipe = load_recipe(name)
        assert all(len(counts) == len(recipe.tasks) for counts in recipe.known.values())
        assert set(recipe.whole_files) == {"train", "val", "test"}
        Aliases.from_lists(recipe.aliases)  # none stands for two answers
        titles.add(recipe.title)
    assert len(titles) == len(names)
    with pytest.raises(ValueError, match="no benchmark 'music_avqa'; there are split_avqa, "):
        load_recipe("music_avqa")


def test_the_folder_reads_as_a_benchmark_with_media_below_one_root(write: Write, tmp_path: Path) -> None:
    out, root = tmp_path / "out", tmp_path / "elsewhere"
    counts = build(
        load_recipe("split_avqa"), "split_avqa", published_tasks(write), out, Choices(media_root=root)
    )
    assert [count.written for count in counts] == [1, 1, 1, 1]
    benchmark = read_benchmark(out / "split_avqa.json")
    assert [task.name for task in benchmark.tasks] == ["Come", "Happening", "Where", "Which"]
    assert [task.results for task in benchmark.tasks][:2] == ["task0_come", "task1_happening"]
    assert benchmark.media_root == root and benchmark.tasks[0].train is None
    path = benchmark.tasks[2].test
    assert path == out / "test_Where.json"
    [sample] = read_samples(path, media_root=benchmark.media_root)
    original = published(2)
    assert sample.id == original["id"]
    assert sample.question == original["conversations"][0]["value"]
    assert sample.answer == "street"
    prefix = "/path/to/dataset_QA/AVQA_dataset/frames_converted_2"
    wanted = [*original["video"], *original["voice"]]
    assert [str(path) for media in sample.media for path in media.paths] == [
        path.replace(prefix, str(root)) for path in wanted
    ]


def test_a_folder_with_its_own_media_can_be_moved(write: Write, tmp_path: Path) -> None:
    build(load_recipe("split_avqa"), "x", published_tasks(write), tmp_path / "out", Choices(media="videos"))
    (tmp_path / "out").rename(tmp_path / "moved")
    benchmark = read_benchmark(tmp_path / "moved" / "x.json")
    [sample] = read_samples(tmp_path / "moved" / "test_Which.json", media_root=benchmark.media_root)
    assert {path for media in sample.media for path in media.paths} == {
        tmp_path / "moved" / "media" / "abcdefghij3.mp4"
    }
    assert [media.kind for media in sample.media] == ["video", "audio"]


def test_accepted_spellings_lie_where_scoring_reads_them(write: Write, tmp_path: Path) -> None:
    recipe, folder = load_recipe("split_avqa"), published_tasks(write)
    build(recipe, "x", folder, tmp_path / "out", Choices())
    path = alias_file(tmp_path / "out" / "x.json")
    assert path is not None and read_aliases(path).matches("In the cage", "cage")
    assert not is_correct("In the cage", "cage")  # the exact column does not know of them
    path.write_text('{"cage": ["birdcage"]}')
    build(recipe, "x", folder, tmp_path / "out", Choices())
    assert read_aliases(path).matches("birdcage", "cage")  # yours is kept
    build(replace(recipe, aliases={}), "y", folder, tmp_path / "out", Choices())
    assert alias_file(tmp_path / "out" / "y.json") is None


def test_questions_about_clips_without_media_are_dropped_and_counted(write: Write, tmp_path: Path) -> None:
    folder = write("test_Where.json", published(2), published(5))
    for number in (0, 1, 3):
        folder = write(f"test_{KINDS[number]}.json", published(number))
    for clip in range(4):
        for name in (*(f"frame_{number:03d}.jpg" for number in range(1, 9)), "audio.wav"):
            path = tmp_path / "media" / f"abcdefghij{clip}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    choices = Choices(media_root=tmp_path / "media", drop_missing=True)
    counts = build(load_recipe("split_avqa"), "x", folder, tmp_path / "out", choices)
    assert [(count.written, count.dropped) for count in counts] == [(1, 0), (1, 0), (1, 1), (1, 0)]
    protocol = read_benchmark(tmp_path / "out" / "x.json").protocol
    assert protocol is not None and protocol.endswith("; --drop_missing left out 1 of 5 test questions")
    path.unlink()
    with pytest.raises(InputError, match="holds no question of task 'Which'"):
        build(load_recipe("split_avqa"), "x", folder, tmp_path / "out", choices)


def test_synthetic_clips_are_left_out_unless_asked_for(write: Write, tmp_path: Path) -> None:
    recipe = load_recipe("split_music_avqa")
    kinds = [task.key for task in recipe.tasks]
    real = [music(number, "Audio-Visual", kind) for number, kind in enumerate(kinds)]
    made = music(99, "Audio-Visual", "Counting", video_id="va00000001")
    folder = write("avqa-test.json", *real, made)
    written = {
        synthetic: [
            (count.written, count.known)
            for count in build(recipe, "x", folder, tmp_path / "out", Choices(synthetic=synthetic))
        ]
        for synthetic in (False, True)
    }
    assert written[False] == [(1, 947), (1, 893), (1, 711), (1, 972), (1, 637)]
    assert written[True] == [(2, None), (1, None), (1, None), (1, None), (1, None)]
    protocol = "Split-MUSIC-AVQA, 5 question types; test is avqa-test.json; --videos all, synthetic ones too"
    assert read_benchmark(tmp_path / "out" / "x.json").protocol == protocol


def test_sessions_divide_every_task_by_the_labels_of_its_clips(write: Write, tmp_path: Path) -> None:
    for start, kind in enumerate(KINDS):
        labels = ("dog barking", "cat purring", "subway")
        items = [avqacl(10 * start + n, kind.replace("_", " "), label) for n, label in enumerate(labels)]
        folder = write(f"train_{kind}.json", *items)
    steps = tmp_path / "steps.json"
    steps.write_text(json.dumps([["dog barking", "cat purring"], ["subway", "cat purring"]]))
    counts = build(load_recipe("split_avqa"), "x", folder, tmp_path / "out", Choices(sessions=steps))
    assert [(count.task, count.written, count.known) for count in counts][:3] == [
        ("Come 1", 2, None),
        ("Come 2", 2, None),
        ("Happening 1", 2, None),
    ]
    benchmark = read_benchmark(tmp_path / "out" / "x.json")
    assert (benchmark.name, len(benchmark.tasks)) == ("Split-AVQA-8-sessions", 8)
    assert [sample.id for sample in read_samples(tmp_path / "out" / "train_Come_From_2.json")] == ["1", "2"]
    assert benchmark.protocol == (
        "Split-AVQA, 4 question types; test is not there; --videos real; 8 sessions, 2 for each question "
        "type; what AVQACL calls MA, the mean over sessions of the accuracy on all seen so far, is the "
        "column Avg"
    )


def test_the_protocol_says_what_the_test_questions_are(write: Write, tmp_path: Path) -> None:
    folder, recipe = published_tasks(write), load_recipe("split_avqa")
    build(recipe, "x", folder, tmp_path / "out", Choices())
    protocol = "Split-AVQA, 4 question types; test is test_TASK.json; --videos real"
    assert read_benchmark(tmp_path / "out" / "x.json").protocol == protocol
    for path in folder.iterdir():
        path.unlink()
    asked = [avqa(number, kind.replace("_", " ")) for number, kind in enumerate(KINDS * 10)]
    write("val_qa.json", *asked)
    build(recipe, "x", folder, tmp_path / "out", Choices())
    assert "; test is half of val, by clip (val_qa.json); " in str(
        read_benchmark(tmp_path / "out" / "x.json").protocol
    )


def test_sessions_need_labels_and_a_list_of_lists(write: Write, tmp_path: Path) -> None:
    folder, steps = published_tasks(write), tmp_path / "steps.json"
    steps.write_text('[["dog barking"]]')
    with pytest.raises(ValueError, match="sessions need annotations with a field 'label'"):
        build(load_recipe("split_avqa"), "x", folder, tmp_path / "out", Choices(sessions=steps))
    for content in ("{}", "[]", "[[]]", "[[3]]"):
        steps.write_text(content)
        with pytest.raises(InputError, match="expected a list of lists of labels"):
            build(load_recipe("split_avqa"), "x", folder, tmp_path / "out", Choices(sessions=steps))


def test_differences_from_known_counts_name_both_numbers() -> None:
    counts = [
        Count("Come", "test", 1848, 1, 1849),
        Count("Where", "test", 700, 2, 749),
        Count("W", "val", 3, 0, None),
    ]
    [line] = differences("Split-AVQA", counts)
    assert line.startswith("Split-AVQA, task Where, test: 702 questions, known are 749; ")
    shown = table([counts[0], Count("Come", "val", 5, 0, None)])
    assert shown[0].split() == ["task", "val", "test"]
    assert shown[1].split() == ["Come", "5", "1848", "-1", "(known", "1849)"]


@pytest.mark.parametrize("frames", [0, 1000])
def test_a_number_of_frames_without_a_name_is_refused(frames: int) -> None:
    with pytest.raises(ValueError, match=f"frames: got {frames}, expected 1 to 999"):
        Choices(frames=frames)
