"""Continual-learning metrics: matrices worked out by hand, and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluation.scoring import continual
from evaluation.scoring.continual import measure

N = None
# Three tasks; the cells above the diagonal are measured one task ahead.
BY_HAND = [
    [80.0, 10.0, N],
    [60.0, 90.0, 20.0],
    [70.0, 75.0, 85.0],
]
ZERO_SHOT = [5.0, 4.0, 2.0]


def square(tasks: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, (tasks, tasks), elements=st.floats(0, 100, width=32))


MATRICES = st.integers(2, 6).flatmap(square)


def test_worked_out_by_hand() -> None:
    metrics = measure(BY_HAND, ZERO_SHOT)
    assert metrics.MA == pytest.approx((70 + 75 + 85) / 3)
    # After task 2: 80 - 60 = 20. After task 3: mean of 80 - 70 and 90 - 75 = 12.5.
    assert metrics.AF == pytest.approx((20 + 12.5) / 2)
    assert metrics.Avg == pytest.approx((80 + 75 + 230 / 3) / 3)
    assert metrics.FM == pytest.approx(12.5)
    assert metrics.BWT == pytest.approx(((70 - 80) + (75 - 90)) / 2)
    assert metrics.FWT == pytest.approx(((10 - 4) + (20 - 2)) / 2)


def test_forgetting_is_against_the_best_stage() -> None:
    """Accuracy that rises before it falls: AF and FM look at the peak, BWT at the learning stage."""
    matrix = [[50.0, N, N], [90.0, 80.0, N], [60.0, 80.0, 70.0]]
    metrics = measure(matrix)
    assert metrics.AF == pytest.approx((-40 + (30 + 0) / 2) / 2)
    assert metrics.FM == pytest.approx((30 + 0) / 2)
    assert metrics.BWT == pytest.approx((10 + 0) / 2)
    assert metrics.FWT is None


def test_accuracy_before_learning_is_not_forgotten() -> None:
    """R[1][2] = 99 was measured before task 2 was learned; losing it is no forgetting."""
    metrics = measure([[50.0, 99.0, N], [50.0, 60.0, 0.0], [50.0, 60.0, 70.0]])
    assert metrics.AF == metrics.FM == 0.0


def test_a_missing_cell_makes_none_not_a_guess() -> None:
    matrix = [[80.0, N, N], [N, 90.0, 20.0], [70.0, 75.0, 85.0]]
    metrics = measure(matrix, ZERO_SHOT)
    assert metrics.MA is not None and metrics.BWT is not None
    assert (metrics.AF, metrics.Avg, metrics.FM, metrics.FWT) == (N, N, N, N)


def test_a_method_without_stages_has_its_final_accuracy_only() -> None:
    for matrix in ([[10.0, 20.0, 30.0]], [[N, N, N], [N, N, N], [10.0, 20.0, 30.0]]):
        assert measure(matrix, ZERO_SHOT).as_dict() == {
            "MA": 20.0, "AF": N, "Avg": N, "FM": N, "BWT": N, "FWT": N
        }  # fmt: skip


def test_a_single_task_cannot_be_forgotten() -> None:
    assert measure([[70.0]], [5.0]).as_dict() == {
        "MA": 70.0,
        "AF": N,
        "Avg": 70.0,
        "FM": N,
        "BWT": N,
        "FWT": N,
    }


@given(st.integers(2, 6), st.floats(0, 100))
def test_constant_matrix(tasks: int, value: float) -> None:
    metrics = measure([[value] * tasks] * tasks, [value] * tasks)
    assert (metrics.AF, metrics.FM, metrics.BWT, metrics.FWT) == (0, 0, 0, 0)
    assert metrics.MA == pytest.approx(value) and metrics.Avg == pytest.approx(value)


@given(MATRICES)
def test_forgetting_bounds_backward_transfer(R: np.ndarray) -> None:
    """The best stage is at least as good as the learning one: FM >= -BWT."""
    metrics = measure(R.tolist())
    assert metrics.FM is not None and metrics.BWT is not None
    assert metrics.FM >= -metrics.BWT - 1e-9


@given(MATRICES)
def test_monotone_forgetting_is_minus_backward_transfer(R: np.ndarray) -> None:
    """Where no accuracy ever recovers, the best stage is the one that learned the task, and FM = -BWT."""
    falling = np.sort(R, axis=0)[::-1]
    metrics = measure(falling.tolist())
    assert metrics.FM is not None and metrics.BWT is not None
    assert metrics.FM == pytest.approx(-metrics.BWT)
    assert metrics.AF is not None and metrics.AF >= 0


@given(st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100)))
def test_two_tasks_have_one_forgetting(cells: tuple[float, float, float]) -> None:
    first, kept, second = cells
    metrics = measure([[first, N], [kept, second]])
    assert metrics.AF == metrics.FM == pytest.approx(first - kept)
    assert metrics.BWT == pytest.approx(kept - first)


def test_every_metric_has_its_formula() -> None:
    assert list(continual.FORMULAS) == list(measure(BY_HAND).as_dict())


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([], "rows of no cells"),
        ([[]], "rows of"),
        ([[1.0, 2.0], [1.0]], r"rows of \[1, 2\] cells"),
        ([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], "2 rows and 3 columns"),
        ([[1.0, 2.0], [3.0, 100.5]], "row 1, column 1 is 100.5"),
        ([[-0.1, 2.0], [3.0, 4.0]], "row 0, column 0"),
    ],
)
def test_malformed_matrices(matrix: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(matrix)


def test_zero_shot_of_another_number_of_tasks() -> None:
    with pytest.raises(ValueError, match="zero-shot accuracies of 2 tasks for a matrix of 3"):
        measure(BY_HAND, [1.0, 2.0])


def test_mean_and_std() -> None:
    assert continual.mean_and_std([1.0, 2.0, 6.0]) == (3.0, pytest.approx(7**0.5))
    assert continual.mean_and_std([4.0]) == (4.0, None)
    assert continual.mean_and_std([4.0, None]) == (None, None)
    assert continual.mean_and_std([]) == (None, None)


def test_mean_matrix() -> None:
    mean, std = continual.mean_matrix([[[10.0, N], [30.0, 40.0]], [[20.0, N], [30.0, N]]])
    assert mean == [[15.0, N], [30.0, N]]
    assert std == [[pytest.approx(50**0.5), N], [0.0, N]]
    with pytest.raises(ValueError, match=r"\[1, 2\] tasks"):
        continual.mean_matrix([[[10.0]], [[10.0, 20.0]]])
