"""Questions and answers of the sample data, and how they are dealt out to the splits."""

from collections import Counter

import numpy as np
import pytest

from scripts.tiny_world.kinds import named_kinds
from scripts.tiny_world.places import named_places
from scripts.tiny_world.questions import TASKS, answer_vocabulary, ask, task_answers, task_phrasings
from scripts.tiny_world.sampling import SPLITS, SplitPlan, draw_questions, draw_scenes
from scripts.tiny_world.scene import Scene, compose_scene


def _scene(clip_type: str) -> Scene:
    kinds = named_kinds()
    return compose_scene(
        np.random.default_rng(0), named_places()[1], kinds[0], kinds[-1], kinds[12], clip_type=clip_type
    )


def test_answers_name_what_is_heard_seen_and_where() -> None:
    first, last = named_kinds()[0], named_kinds()[-1]
    assert ask("Come", _scene("C"), 0)[1] == first.name
    assert ask("Happening", _scene("B"), 1)[1] == first.happening
    assert ask("Where", _scene("D"), 2)[1] == named_places()[1].name
    assert ask("Which", _scene("D"), 3) == (
        f"Which {first.category} in the picture makes the sound in this clip?",
        first.name,
    )
    question, answer = ask("Which", _scene("C"), 0, seen=True)
    assert answer == last.name and last.category in question


@pytest.mark.parametrize(
    ("task", "clip_type", "seen", "message"),
    [("Happening", "C", False, "type C"), ("Which", "B", True, "2 kinds"), ("When", "A", False, "'When'")],
)
def test_questions_without_a_single_answer_are_refused(
    task: str, clip_type: str, seen: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ask(task, _scene(clip_type), 0, seen)


def test_no_question_belongs_to_two_tasks_nor_holds_an_answer_word() -> None:
    phrasings = task_phrasings()
    assert tuple(phrasings) == tuple(task_answers()) == TASKS
    every = [question for questions in phrasings.values() for question in questions]
    assert len(set(every)) == len(every)
    words = {word.strip("?,.").lower() for question in every for word in question.split()}
    assert not words & answer_vocabulary()


def test_come_and_which_share_most_of_their_words() -> None:
    words = {task: Counter(" ".join(q).split()) for task, q in task_phrasings().items()}
    common = sum((words["Come"] & words["Which"]).values())
    assert common / sum(words["Come"].values()) > 0.6


@pytest.fixture(scope="module")
def drawn() -> dict[str, tuple[SplitPlan, tuple[Scene, ...], np.random.Generator]]:
    splits = {}
    for number, plan in enumerate(SPLITS):
        rng = np.random.default_rng([7, number])
        splits[plan.name] = (plan, draw_scenes(plan, rng), rng)
    return splits


def test_every_answer_of_val_and_test_occurs_in_training(drawn: dict) -> None:
    questions = {name: draw_questions(plan, scenes, rng) for name, (plan, scenes, rng) in drawn.items()}
    for task in TASKS:
        answers = {name: {q.answer for q in asked if q.task == task} for name, asked in questions.items()}
        assert answers["val"] | answers["test"] <= answers["train"] == set(task_answers()[task])
        for plan in SPLITS:
            own = [q for q in questions[plan.name] if q.task == task]
            assert len(own) == plan.questions == len({q.clip for q in own})


def test_combinations_of_training_and_test_differ(drawn: dict) -> None:
    places, partners = {}, {}
    for name, (_, scenes, _) in drawn.items():
        places[name] = {(s.heard[0].kind.name, s.place.name) for s in scenes}
        partners[name] = {
            (s.heard[0].kind.name, seen.kind.name)
            for s in scenes
            for seen in s.seen
            if seen.kind != s.heard[0].kind
        }
    for other in ("val", "test"):
        assert not places["train"] & places[other]
        assert not partners["train"] & partners[other]


def test_too_few_clips_are_reported() -> None:
    plan = SplitPlan("train", 60, 60, (-30.0, -20.0))
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="asks 60 questions, but only"):
        draw_questions(plan, draw_scenes(plan, rng), rng)
