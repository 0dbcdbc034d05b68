"""Intervals and paired tests: every number is worked out by hand or follows from a known distribution."""

import math

import numpy as np
import pytest

from evaluation.scoring import continual
from evaluation.scoring.statistics import (
    Array,
    SampleScores,
    compare,
    holm,
    intervals,
    mcnemar_p,
    sign_flip_p,
)


def row(*values: float) -> Array:
    return np.array(values, dtype=np.float64)


def half(n: int) -> Array:
    return np.arange(n) % 2 * 1.0


def test_interval_of_two_questions() -> None:
    """Two draws of {right, wrong}: both wrong or both right a quarter of the time each."""
    found = intervals([{(0, 0): row(1, 0)}], 1)
    assert found.MA == (0.0, 100.0)
    assert found.matrix == (((0.0, 100.0),),)
    assert found.AF is None


def test_interval_is_that_of_the_binomial() -> None:
    """100 questions, half of them right: a draw has Binomial(100, 0.5) right, quantiles 40 and 60."""
    found = intervals([{(0, 0): half(100)}], 1).MA
    assert found is not None
    assert found == pytest.approx((40.0, 60.0), abs=1.0)


def test_interval_of_the_mean_over_tasks() -> None:
    """MA of two tasks of 200 and 800 questions at 50 %: sd = sqrt(25 / 2 + 25 / 8) / 2 = 1.98 points."""
    scores = {(1, 0): half(200), (1, 1): half(800)}
    found = intervals([scores], 2).MA
    sd = math.sqrt(2500 / 200 + 2500 / 800) / 2
    assert found is not None
    assert found == pytest.approx((50 - 1.96 * sd, 50 + 1.96 * sd), abs=0.4)


def test_seeds_share_the_questions_drawn() -> None:
    """Seeds that err on opposite halves have a mean of one half for every question, whatever is drawn."""
    seeds = [{(0, 0): half(10)}, {(0, 0): 1 - half(10)}]
    assert intervals(seeds, 1).MA == (50.0, 50.0)


def test_more_seeds_are_no_more_questions() -> None:
    scores: SampleScores = {(0, 0): half(40)}
    assert intervals([scores], 1) == intervals([scores] * 3, 1)


def test_interval_of_forgetting() -> None:
    """AF = R[0][0] - R[1][0]; a question forgotten with a chance of one half, so sd = 50 / sqrt(N)."""
    scores = {(0, 0): np.ones(400), (1, 0): half(400), (0, 1): np.zeros(3), (1, 1): np.ones(3)}
    found = intervals([scores], 2)
    assert found.AF == pytest.approx((50 - 4.9, 50 + 4.9), abs=0.8)
    assert found.matrix[0][0] == (100.0, 100.0) and found.matrix[0][1] == (0.0, 0.0)


def test_cells_not_measured_have_no_interval() -> None:
    found = intervals([{(1, 0): half(4), (1, 1): half(6)}], 2)
    assert found.AF is None and found.MA is not None
    assert found.matrix[0] == (None, None)
    assert intervals([{(1, 0): half(4), (0, 0): half(4)}], 2).MA is None


def test_answers_left_out_leave_the_denominator() -> None:
    assert intervals([{(0, 0): row(*[1.0] * 8, np.nan, np.nan)}], 1).MA == (100.0, 100.0)


def test_questions_must_be_the_same() -> None:
    with pytest.raises(ValueError, match=r"task 0: cells of \[2, 3\] questions"):
        intervals([{(0, 0): half(2)}, {(0, 0): half(3)}], 1)
    with pytest.raises(ValueError, match="task 0: one method answered 2 questions, the other 3"):
        compare([{(0, 0): half(2)}], [{(0, 0): half(3)}], 1)


def test_coverage() -> None:
    """Of 300 sets of 60 questions of a method that is right in 70 %, the interval holds 70 in about 95 %."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(300):
        found = intervals([{(0, 0): (rng.random(60) < 0.7).astype(np.float64)}], 1).MA
        assert found is not None
        held += found[0] <= 70.0 <= found[1]
    assert 0.90 <= held / 300 <= 0.99


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
        (5, 0, 2 / 32),
        (3, 3, 1.0),
        (0, 0, 1.0),
        (1, 0, 1.0),
    ],
)
def test_mcnemar(b: int, c: int, p: float) -> None:
    both = 4  # questions on which the methods agree change nothing
    first = np.repeat([1.0, 0.0, 1.0], [b, c, both])
    second = np.repeat([0.0, 1.0, 1.0], [b, c, both])
    assert mcnemar_p(first, second) == pytest.approx(p, abs=1e-15)
    assert sign_flip_p([first - second]) == pytest.approx(p, abs=1e-15)  # the same test, all patterns counted


def test_mcnemar_of_many_questions_does_not_overflow() -> None:
    first, second = np.repeat([1.0, 0.0], [3000, 2000]), np.repeat([0.0, 1.0], [3000, 2000])
    assert 0 < mcnemar_p(first, second) < 1e-40
    assert mcnemar_p(row(1, np.nan, 1), row(0, 0, np.nan)) == 1.0


def test_sign_flips_weigh_tasks_equally() -> None:
    """Means of the tasks: 1 of one question, 0.5 of two, D = 0.75. The weights are 1/2 and 1/4: of the four
    patterns +-1/2 +-1/4 two reach 3/4."""
    assert sign_flip_p([row(1), row(1, 0)]) == 0.5
    assert sign_flip_p([row(1, 1, 1, 1)]) == 2 / 16
    assert sign_flip_p([row(0, 0)]) == 1.0


def test_random_flips_agree_with_the_exact_test() -> None:
    first, second = np.repeat([1.0, 0.0], [60, 40]), np.repeat([0.0, 1.0], [60, 40])
    assert sign_flip_p([first - second]) == pytest.approx(mcnemar_p(first, second), abs=0.01)  # 0.057
    assert sign_flip_p([np.ones(100)]) == 1 / 10001


def test_false_alarms() -> None:
    """Two methods that are equally good: p below 0.05 in at most about 5 % of 200 data sets."""
    rng = np.random.default_rng(3)
    ps = [
        sign_flip_p([rng.integers(-1, 2, 40) * 1.0, rng.integers(-1, 2, 20) * 1.0], 500) for _ in range(200)
    ]
    assert 0.01 <= np.mean(np.array(ps) < 0.05) <= 0.10


def test_comparison() -> None:
    ours: SampleScores = {(1, 0): row(1, 1, 1, 1), (1, 1): row(1, 0)}
    others: SampleScores = {(1, 0): row(1, 0, 0, 0), (1, 1): row(0, 1), (0, 0): row(1, 1, 1, 1)}
    found = compare([ours], [others], 2)
    assert found is not None
    assert found.difference == pytest.approx((75 + 0) / 2)
    assert found.mcnemar == ((0.25, 1.0),)
    # D* = (s1 + s2 + s3) / 8 + (s4 - s5) / 4 against D = 3 / 8. Where s4 = s5, only s1 = s2 = s3 reaches it:
    # 4 of 16 patterns; else all but s1 = s2 = s3 = -s4: 14 of 16.
    assert found.p == (4 + 14) / 32
    assert found.interval is not None and found.interval[0] < 37.5 < found.interval[1]
    back = compare([others], [ours], 2)
    assert back is not None and (back.difference, back.p) == (-found.difference, found.p)
    assert compare([ours], [{(1, 0): row(1, 0, 0, 0)}], 2) is None


def test_paired_interval_is_narrower_than_the_single_ones() -> None:
    """Methods that are right on the same questions differ by the same in every draw."""
    ours, others = half(100), half(100).copy()
    others[1::20] = 0  # five fewer
    found = compare([{(0, 0): ours}], [{(0, 0): others}], 1)
    assert found is not None and found.interval is not None
    assert found.interval == pytest.approx((1, 10), abs=1.01)  # Binomial(100, 0.05): quantiles 1 and 10


def test_comparison_over_seeds_takes_the_mean() -> None:
    """A bare backbone of one seed against three seeds."""
    seeds = [{(0, 0): row(1, 1, 0)}, {(0, 0): row(1, 0, 0)}, {(0, 0): row(1, 0, 0)}]
    found = compare(seeds, [{(0, 0): row(0, 0, 0)}], 1)
    assert found is not None
    assert found.difference == pytest.approx(100 * 4 / 9)
    assert found.p == 2 / 4


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_stacked_metrics_equal_the_single_ones() -> None:
    R_BTT = np.random.default_rng(0).uniform(0, 100, (5, 4, 4))
    for stacked, single in (
        (continual.final_accuracies, continual.final_accuracy),
        (continual.average_forgettings, continual.average_forgetting),
    ):
        assert stacked(R_BTT).tolist() == pytest.approx([single(R_TT) for R_TT in R_BTT])
