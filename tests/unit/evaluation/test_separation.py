"""evaluation/scoring/separation.py: numbers worked out by hand."""

import numpy as np
import pytest

from evaluation.scoring.separation import auroc, calibration, coverage


def test_auroc_counts_pairs_and_half_of_ties() -> None:
    # Pairs (near, far): 1<2 1<3 2=2 2<3 4>2 4>3 -> 3.5 of 6.
    assert auroc([1, 2, 4], [2, 3]) == pytest.approx(3.5 / 6)
    assert auroc([0, 1], [2]) == 1 and auroc([2], [0, 1]) == 0


def test_coverage_allows_the_alarms_and_no_more() -> None:
    near = list(range(20))  # one of twenty may lie beyond: the threshold is 18
    assert coverage(near, [18, 18.5, 30, -1]) == 0.5
    assert coverage(near, [18, 18.5, 19, 30], alarms=0) == 0.25
    assert coverage([1.0], [1.0]) == 0


def test_calibration_by_hand() -> None:
    found = calibration([0.95, 0.95, 0.55, 1.0], [True, False, True, True])
    assert [(one.n, round(one.accuracy, 3)) for one in found.bins] == [(1, 1.0), (3, round(2 / 3, 3))]
    assert found.ece == pytest.approx((0.45 + 3 * abs(2 / 3 - (0.95 + 0.95 + 1) / 3)) / 4)
    rng = np.random.default_rng(0)
    honest = rng.random(20000)
    assert calibration(honest, rng.random(20000) < honest).ece < 0.02


def test_clear_errors() -> None:
    with pytest.raises(ValueError, match="at least one"):
        auroc([], [1])
    with pytest.raises(ValueError, match="none of them NaN"):
        coverage([1, float("nan")], [1])
    with pytest.raises(ValueError, match="alarms"):
        coverage([1], [1], alarms=1)
    with pytest.raises(ValueError, match="expected one each"):
        calibration([1.5], [True])
