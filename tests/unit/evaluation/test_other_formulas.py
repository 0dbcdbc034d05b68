"""Continual-learning metrics against those of other frameworks, on random accuracy matrices.

Avalanche's classes themselves, where avalanche-lib imports; Mammoth is on no package index, so the formulas
of its utils/metrics.py are stated here anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.scoring.continual import measure

Array = NDArray[np.float64]
SEEDS = range(8)


def random_matrix(seed: int) -> tuple[Array, Array]:
    """Accuracies (T, T) of 2 to 9 tasks, every cell measured, and zero-shot accuracies (T,)."""
    rng = np.random.default_rng(seed)
    T = int(rng.integers(2, 10))
    return rng.uniform(0, 100, (T, T)), rng.uniform(0, 10, T)


def falling(R_TT: Array) -> Array:
    """The same accuracies, in each column from the best to the worst: no task ever recovers."""
    return np.sort(R_TT, axis=0)[::-1]


def mammoth_backward_transfer(R_TT: Array) -> float:
    """Mean over all tasks but the last of the final accuracy minus the one right after learning."""
    return float((R_TT[-1, :-1] - np.diag(R_TT)[:-1]).mean())


def mammoth_forward_transfer(R_TT: Array, random_T: Array) -> float:
    """Mean over all tasks but the first of the accuracy just before learning minus that of a random model."""
    return float((np.diag(R_TT, 1) - random_T[1:]).mean())


def mammoth_forgetting(R_TT: Array) -> float:
    """Mean over all tasks but the last of the best accuracy minus the final one; tasks that were not yet
    learned count as 0, and the final accuracy is among those that the best is taken of."""
    seen_TT = np.tril(R_TT)
    return float((seen_TT.max(axis=0) - seen_TT[-1])[:-1].mean())


@pytest.mark.parametrize("seed", SEEDS)
def test_transfer_is_that_of_mammoth(seed: int) -> None:
    R_TT, zero_shot_T = random_matrix(seed)
    metrics = measure(R_TT.tolist(), zero_shot_T.tolist())
    assert metrics.BWT == pytest.approx(mammoth_backward_transfer(R_TT))
    assert metrics.FWT == pytest.approx(mammoth_forward_transfer(R_TT, zero_shot_T))


@pytest.mark.parametrize("seed", SEEDS)
def test_forgetting_is_that_of_mammoth_but_for_tasks_that_end_at_their_best(seed: int) -> None:
    R_TT, _ = random_matrix(seed)
    metrics = measure(falling(R_TT).tolist())
    assert metrics.FM == pytest.approx(mammoth_forgetting(falling(R_TT)))
    found = measure(R_TT.tolist()).FM
    last = len(R_TT) - 1
    lost = [R_TT[i:last, i].max() - R_TT[last, i] for i in range(last)]
    assert found == pytest.approx(np.mean(lost))
    assert mammoth_forgetting(R_TT) == pytest.approx(np.maximum(lost, 0).mean())  # a gain counts as 0 there


@pytest.fixture(scope="module")
def avalanche() -> Iterator[Any]:
    """Its metrics; not among the test extras, since it pulls in a tracking service and a dozen packages."""
    reason = "avalanche-lib does not import: pip install avalanche-lib, in an environment of its own"
    yield pytest.importorskip("avalanche.evaluation.metrics", reason=reason, exc_type=ImportError)


@pytest.mark.parametrize("seed", SEEDS)
def test_metrics_are_those_of_avalanche(avalanche: Any, seed: int) -> None:
    R_TT, zero_shot_T = random_matrix(seed)
    T = len(R_TT)
    metrics = measure(R_TT.tolist(), zero_shot_T.tolist())
    backward, forward, final = avalanche.BWT(), avalanche.ForwardTransfer(), avalanche.Mean()
    for i in range(T):
        final.update(R_TT[-1, i])
        if i < T - 1:
            backward.update(i, R_TT[i, i], initial=True)
            backward.update(i, R_TT[-1, i])
        if i:
            forward.update(i, zero_shot_T[i], initial=True)
            forward.update(i, R_TT[i - 1, i])
    assert metrics.BWT == pytest.approx(np.mean(list(backward.result().values())))
    assert metrics.FWT == pytest.approx(np.mean(list(forward.result().values())))
    assert metrics.MA == pytest.approx(final.result())


@pytest.mark.parametrize("seed", SEEDS)
def test_forgetting_is_that_of_avalanche_where_nothing_recovers(avalanche: Any, seed: int) -> None:
    """Avalanche counts from the accuracy right after learning, FM and AF from the best one so far."""
    R_TT = falling(random_matrix(seed)[0])
    stages = []
    for t in range(1, len(R_TT)):
        forgetting = avalanche.Forgetting()
        for i in range(t):
            forgetting.update(i, R_TT[i, i], initial=True)
            forgetting.update(i, R_TT[t, i])
        stages.append(np.mean(list(forgetting.result().values())))
    metrics = measure(R_TT.tolist())
    assert metrics.FM == pytest.approx(stages[-1])
    assert metrics.AF == pytest.approx(np.mean(stages))
