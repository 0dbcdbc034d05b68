"""evaluation/router_exam: numbers that can be told beforehand, on drawn vectors."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from evaluation.router_exam.exam import Exam, Spread, bound
from evaluation.router_exam.material import TaskQuestions, Vectors, bare_anchor, foremost
from evaluation.router_exam.synthetic import many_tasks
from evaluation.router_exam.unknown import held_out
from model.moe.routing import RouterConfig

LDA = RouterConfig("lda", modalities=("text",), wordings="known")
WIDTH, WORDINGS = 6, 12


@pytest.fixture
def exam() -> Exam:
    """Three tasks, each with twelve wordings around a mean of its own; `odd` is asked by tasks 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    texts = {f"{task}.{number}": task for task in range(3) for number in range(WORDINGS)}
    axes = torch.eye(WIDTH)
    rows = [8 * axes[task] + torch.randn(WIDTH, generator=generator) for task in texts.values()]
    rows.append(8 * axes[0] + 4 * axes[1])
    vectors = Vectors({text: row for row, text in enumerate([*texts, "odd"])}, torch.stack(rows), "question")
    tasks = []
    for task in range(3):
        asked = Counter({text: 2 for text, own in texts.items() if own == task})
        test = Counter(asked)
        if task < 2:
            test["odd"] = 6 - 2 * task  # 6 and 4 of 30 and 28
        tasks.append(TaskQuestions(f"task {task}", asked, test))
    return Exam(LDA, tasks, vectors, [vectors.anchor(n, task.train) for n, task in enumerate(tasks)])


def test_accuracy_is_the_best_possible(exam: Exam) -> None:
    scores = exam.score([task.test for task in exam.tasks])
    assert scores.confusion.tolist() == [[30, 0, 0], [4, 24, 0], [0, 0, 24]]
    assert scores.micro == bound([task.test for task in exam.tasks])["micro"] == pytest.approx(100 * 78 / 82)
    alone = exam.score([Counter(), {"odd": 4}, Counter()])
    assert alone.macro == 0  # tasks that were not asked do not count


def test_stages_and_orders(exam: Exam) -> None:
    macro = [stage["macro"] for stage in exam.stages()]
    assert macro == pytest.approx([100, 100 * (1 + 24 / 28) / 2, 100 * (2 + 24 / 28) / 3])
    found = exam.orders()
    assert found["last_stage"].low == found["last_stage"].high == pytest.approx(macro[-1])
    # The ambiguous pair meets at the second stage in two orders of six, else at the third.
    assert found["mean_over_stages"].low == pytest.approx(sum(macro) / 3)
    assert found["mean_over_stages"].high == pytest.approx((200 + macro[-1]) / 3)


def test_confidence(exam: Exam) -> None:
    asked = [task.test for task in exam.tasks]
    temperatures = exam.temperatures()
    assert temperatures.new == temperatures.known  # `lda` has one space
    shares = exam.confidences(asked, temperatures)
    assert all(share.sum() == pytest.approx(1) for share in shares.values())
    found = exam.calibration(asked, temperatures)
    assert sum(one.n for one in found.bins) == 82 and found.ece == pytest.approx(4 / 82, abs=0.02)


def test_questions_in_new_words_have_a_temperature_of_their_own(exam: Exam) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.cat([exam.vectors.values, 40 * torch.randn(30, WIDTH, generator=generator)])
    place = {**exam.vectors.place, **{f"new {row}": len(exam.vectors.values) + row for row in range(30)}}
    vectors = Vectors(place, rows, "question")
    tasks = [  # rewordings that say nothing: whatever they are like, each task has as many
        replace(task, reworded=those, surely_reworded=those)
        for number, task in enumerate(exam.tasks)
        for those in [{f"new {row}": 1.0 for row in range(30) if row % 3 == number}]
    ]
    anchors = [vectors.anchor(number, task.train, task.reworded) for number, task in enumerate(tasks)]
    examined = Exam(RouterConfig("cosine", modalities=("text",)), tasks, vectors, anchors)
    answers = examined.answers(examined.router, [task.reworded for task in tasks])
    assert all(answers.new.values())
    found = examined.temperatures()
    assert found.new > 2 * found.known
    sure = examined.confidences([tasks[0].reworded], replace(found, new=found.known))
    unsure = examined.confidences([tasks[0].reworded], found)
    assert all(unsure[text].max() < sure[text].max() for text in tasks[0].reworded)


def test_a_question_is_foremost_where_it_is_asked_most() -> None:
    assert foremost([{"a": 3, "b": 1}, {"a": 2, "c": 1}, {"a": 3}]) == [{"a", "b"}, {"c"}, {"a"}]


def test_few_questions(exam: Exam) -> None:
    found = exam.few(5, range(3))
    assert found["macro"].low <= found["macro"].mean <= found["macro"].high <= 100 * (2 + 24 / 28) / 3 + 1e-9
    assert found["macro"].mean > 80
    assert Spread.of([1, 3]) == Spread(2, 1, 3)


def test_a_task_held_out_is_far(exam: Exam) -> None:
    found = held_out(exam, 2)
    assert (found.task, found.auroc, found.coverage) == ("task 2", 1, 100)
    assert found.flagged == 100 and found.alarms < 20
    assert found.right_abstaining <= found.right <= 100
    assert held_out(replace(exam, config=replace(LDA, abstain=True)), 2) == found


def test_held_out_by_hand(exam: Exam) -> None:
    """Questions at the very centre of a task are near it, one a hundred times as far out is far from all."""
    axes = torch.eye(WIDTH)
    placed = {f"centre {task}": 8 * axes[task] for task in range(2)}
    placed |= {"stray": 800 * axes[0], "unknown": 800 * axes[2]}
    start = len(exam.vectors.values)
    place = {**exam.vectors.place, **{text: start + row for row, text in enumerate(placed)}}
    vectors = Vectors(place, torch.cat([exam.vectors.values, torch.stack(list(placed.values()))]), "question")
    asked = [
        Counter({"centre 0": 5, "centre 1": 2, "stray": 3}),  # right, sent to task 1, right but far
        Counter({"centre 1": 7, "stray": 3}),  # right, sent to task 0 and far
        Counter({"centre 0": 1, "unknown": 3}),  # of the task that is left out
    ]
    tasks = [replace(task, test=test) for task, test in zip(exam.tasks, asked, strict=True)]
    found = held_out(replace(exam, tasks=tasks, vectors=vectors), 2)
    assert found.alarms == pytest.approx(100 * 6 / 20)
    assert found.right == pytest.approx(100 * (5 + 3 + 7) / 20)
    assert found.right_abstaining == pytest.approx(100 * (5 + 7) / 20)
    assert found.flagged == pytest.approx(100 * 3 / 4)


def test_many_drawn_tasks() -> None:
    found = many_tasks(LDA, 20)
    assert found.tasks == 20 and found.accuracy > 90 and found.microseconds > 0
    assert many_tasks(LDA, 20).accuracy == found.accuracy


def test_nothing_is_far_from_a_bare_anchor() -> None:
    anchor = bare_anchor(0, torch.randn(5, 4))
    assert anchor.stats["text"].held_out is not None and anchor.stats["text"].held_out.shape == (0,)
