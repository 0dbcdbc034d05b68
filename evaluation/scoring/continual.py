"""Metrics of continual learning from the accuracy matrix.

R[k][i] is the accuracy in percent on task i after learning task k, both counted from 1 in the formulas and
from 0 in the code; None where it was not measured. Rows are the stages k, columns the tasks i. A method
without stages (joint training, the bare backbone) fills the last row only, and then has an MA only; it may be
given as that one row.

A metric that needs a cell that was not measured is None: nothing is guessed or left out of a mean.

Letters: T tasks and stages, K rows given (T, or 1 for a method without stages), S seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Cell = float | None
Matrix = Sequence[Sequence[Cell]]

# The text printed beside each number; the functions below carry the same formula.
FORMULAS: dict[str, str] = {
    "MA": "mean_i R[T][i]",
    "AF": "mean over t>=2 of mean_{i<t} (max_{i<=l<t} R[l][i] - R[t][i])",
    "Avg": "mean_k mean_{i<=k} R[k][i]",
    "FM": "mean_{i<T} (max_{i<=k<T} R[k][i] - R[T][i])",
    "BWT": "mean_{i<T} (R[T][i] - R[i][i])",
    "FWT": "mean_{i>=2} (R[i-1][i] - zero_shot[i])",
}


@dataclass(frozen=True)
class ContinualMetrics:
    """The six metrics of one accuracy matrix, in percent points; None where a needed cell is missing."""

    MA: Cell  # final accuracy, also called Last
    AF: Cell  # average forgetting, as in AVQACL-MoE
    Avg: Cell  # accuracy averaged over the stages, also called MAA
    FM: Cell  # forgetting at the end, against the best accuracy since the task was learned
    BWT: Cell  # backward transfer
    FWT: Cell  # forward transfer: the next task before it is learned, against the bare backbone

    def as_dict(self) -> dict[str, Cell]:
        """Name -> value, in the order of the table."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def to_array(matrix: Matrix) -> NDArray[np.float64]:
    """Return the matrix as (T, T) float64, NaN for None; a single row becomes the last of T rows.

    Raises ValueError for rows of unequal length, an accuracy outside 0..100, or a shape other than (T, T)
    and (1, T).
    """
    lengths = sorted({len(row) for row in matrix})
    if len(lengths) != 1 or lengths == [0]:
        raise ValueError(
            f"accuracy matrix: rows of {lengths or 'no'} cells; expected equal lengths, one cell a task"
        )
    R_KT = np.array([[np.nan if cell is None else cell for cell in row] for row in matrix], dtype=np.float64)
    K, T = R_KT.shape
    if K not in (1, T):
        raise ValueError(
            f"accuracy matrix of {K} rows and {T} columns; expected a row for each of {T} tasks, or one row"
        )
    outside = (R_KT < 0) | (R_KT > 100) | np.isinf(R_KT)
    if outside.any():
        k, i = (int(index) for index in np.argwhere(outside)[0])
        raise ValueError(f"accuracy matrix: row {k}, column {i} is {R_KT[k, i]}; expected percent, 0 to 100")
    R_TT = np.full((T, T), np.nan)
    R_TT[T - K :] = R_KT
    return R_TT


def _known(value: float) -> Cell:
    """NaN, which any missing cell spreads, becomes None."""
    return None if np.isnan(value) else float(value)


def _several_tasks(measure: Callable[[NDArray[np.float64]], Cell]) -> Callable[[NDArray[np.float64]], Cell]:
    """Make a metric None for a single task: there is nothing to forget or to transfer."""

    def checked(R_TT: NDArray[np.float64]) -> Cell:
        return measure(R_TT) if len(R_TT) > 1 else None

    checked.__doc__ = measure.__doc__
    return checked


def final_accuracy(R_TT: NDArray[np.float64]) -> Cell:
    """MA = mean_i R[T][i]; "MA" in AVQACL-MoE, "Last" in CoIN and EasyCL."""
    return _known(float(final_accuracies(R_TT)))


def final_accuracies(R_TT: NDArray[np.float64]) -> NDArray[np.float64]:
    """MA of any number of matrices, (..., T, T) -> (...); NaN where a cell is missing."""
    return R_TT[..., -1, :].mean(axis=-1)


@_several_tasks
def average_forgetting(R_TT: NDArray[np.float64]) -> Cell:
    """AF = mean over t>=2 of mean_{i<t} (max_{i<=l<t} R[l][i] - R[t][i]); AVQACL-MoE."""
    return _known(float(average_forgettings(R_TT)))


def average_forgettings(R_TT: NDArray[np.float64]) -> NDArray[np.float64]:
    """AF of any number of matrices, (..., T, T) -> (...); NaN where a cell is missing or T is 1."""
    T = R_TT.shape[-1]
    stages = [
        np.mean([R_TT[..., i:t, i].max(axis=-1) - R_TT[..., t, i] for i in range(t)], axis=0)
        for t in range(1, T)
    ]
    return np.mean(stages, axis=0) if stages else np.full(R_TT.shape[:-2], np.nan)


def average_accuracy(R_TT: NDArray[np.float64]) -> Cell:
    """Avg = mean_k mean_{i<=k} R[k][i]; "MAA" in EasyCL and MCITlib."""
    return _known(np.mean([R_TT[k, : k + 1].mean() for k in range(len(R_TT))]))


@_several_tasks
def forgetting_measure(R_TT: NDArray[np.float64]) -> Cell:
    """FM = mean_{i<T} (max_{i<=k<T} R[k][i] - R[T][i]); Mammoth, PILOT. A task that ends above its
    best counts as negative here and as 0 in Mammoth."""
    last = len(R_TT) - 1
    return _known(np.mean([R_TT[i:last, i].max() - R_TT[last, i] for i in range(last)]))


@_several_tasks
def backward_transfer(R_TT: NDArray[np.float64]) -> Cell:
    """BWT = mean_{i<T} (R[T][i] - R[i][i]); GEM (arXiv 1706.08840)."""
    return _known((R_TT[-1] - R_TT.diagonal())[:-1].mean())


def forward_transfer(R_TT: NDArray[np.float64], zero_shot: Sequence[Cell] | None) -> Cell:
    """FWT = mean_{i>=2} (R[i-1][i] - zero_shot[i]); GEM. None without the T zero-shot accuracies.

    Raises ValueError if there are zero-shot accuracies of another number of tasks.
    """
    T = len(R_TT)
    if zero_shot is None or T < 2:
        return None
    if len(zero_shot) != T:
        raise ValueError(f"zero-shot accuracies of {len(zero_shot)} tasks for a matrix of {T}; expected {T}")
    baseline_T = to_array([zero_shot])[-1]
    return _known((R_TT.diagonal(offset=1) - baseline_T[1:]).mean())


def measure(matrix: Matrix, zero_shot: Sequence[Cell] | None = None) -> ContinualMetrics:
    """All metrics of one accuracy matrix; see FORMULAS. zero_shot: the bare backbone's accuracy on each task.

    Raises ValueError for a malformed matrix.
    """
    R_TT = to_array(matrix)
    return ContinualMetrics(
        MA=final_accuracy(R_TT),
        AF=average_forgetting(R_TT),
        Avg=average_accuracy(R_TT),
        FM=forgetting_measure(R_TT),
        BWT=backward_transfer(R_TT),
        FWT=forward_transfer(R_TT, zero_shot),
    )


def mean_and_std(values: Sequence[Cell]) -> tuple[Cell, Cell]:
    """Mean and sample standard deviation (n - 1) over seeds.

    Both are None if a seed lacks the value; the deviation is None for a single seed.
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None, None
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None


def mean_matrix(matrices: Sequence[Matrix]) -> tuple[list[list[Cell]], list[list[Cell]]]:
    """Cell by cell mean and standard deviation over S seeds' matrices, each T rows of T values or None.

    Raises ValueError if the matrices are of different numbers of tasks.
    """
    arrays = [to_array(matrix) for matrix in matrices]
    sizes = sorted({len(R_TT) for R_TT in arrays})
    if len(sizes) != 1:
        raise ValueError(f"accuracy matrices of the seeds are of {sizes} tasks; expected one number")
    T = sizes[0]
    cells = [[mean_and_std([_known(R_TT[k, i]) for R_TT in arrays]) for i in range(T)] for k in range(T)]
    return [[mean for mean, _ in row] for row in cells], [[std for _, std in row] for row in cells]
