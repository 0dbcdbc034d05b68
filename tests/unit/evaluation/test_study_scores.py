"""Answers of a study become matrices, scores of samples and normalised match, over stages and seeds."""

from pathlib import Path

import numpy as np
import pytest

from data.benchmark import Task
from data.samples import Sample
from evaluation.answering import Request
from evaluation.eval_all import merge, method_result
from evaluation.scoring.normalised import Aliases
from evaluation.study import MethodPlan, StagePlan, score_study
from evaluation.summary import build_summary

EXPECTED = (("dog", "cat", "two", "train"), ("yes", "no"))  # of two tasks
TASKS = [Task(i, name, None, None, None, name) for i, name in enumerate(("A", "B"))]
ALIASES = Aliases.from_lists({"train": ["railway"]})
# (stage, task) -> answers
ANSWERS = {
    (0, 0): ["dog", "cat", "two", "train"],
    (0, 1): ["", ""],
    (1, 0): ["Dog.", "", "2", "railway"],
    (1, 1): ["yes", "yes"],
}


def plans() -> list[StagePlan]:
    asked = [
        tuple(Request(Sample(str(n), n, Path("x"), "?", answer, (), {}), 0) for n, answer in enumerate(task))
        for task in EXPECTED
    ]
    return [StagePlan(stage, task, asked[task]) for stage, task in ANSWERS]


def test_all_scores_of_a_study() -> None:
    scores = score_study(plans(), list(ANSWERS.values()), 2, aliases=ALIASES)
    assert scores.matrix == [[100.0, 0.0], [25.0, 50.0]]
    assert (scores.n, scores.n_failed) == (6, 1)
    assert scores.samples[1, 0].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert scores.normalised == [75.0, 50.0]
    for (stage, task), cell in scores.samples.items():
        assert scores.matrix[stage][task] == 100 * cell.mean()


def test_failed_answers_left_out() -> None:
    scores = score_study(plans(), list(ANSWERS.values()), 2, drop_failed=True, aliases=ALIASES)
    assert scores.matrix == [[100.0, 0.0], [pytest.approx(100 / 3), 50.0]]
    assert np.isnan(scores.samples[1, 0]).tolist() == [False, True, False, False]
    assert scores.normalised == [100.0, 50.0]


def test_seeds_reach_the_summary() -> None:
    plan = MethodPlan("sequential", plans())
    wrong = [["x"] * len(texts) for texts in ANSWERS.values()]
    seeds = [method_result(plan, answers, TASKS, False, ALIASES) for answers in (ANSWERS.values(), wrong)]
    reference = method_result(MethodPlan("anchor_moe", plans()), list(ANSWERS.values()), TASKS)
    methods = [merge([reference, reference]), merge(seeds)]
    summary = build_summary("X", ["A", "B"], [0, 1], methods, {})
    entry = summary["methods"]["sequential"]
    assert (entry["MA"], entry["MA_normalised"]) == (37.5 / 2, 62.5 / 2)
    assert entry["MA_interval"][0] < entry["MA"] < entry["MA_interval"][1]
    test = summary["tests"]["sequential"]
    assert test["MA_difference"] == 37.5 / 2
    assert test["p"] == 0.5  # two questions differ, by 1/2 each: of four patterns the two of like signs
    assert len(test["mcnemar"]) == 2
