"""How sure the numbers are: bootstrap intervals, and paired tests between methods on the same questions.

What is drawn anew is the test questions, within each task, so that every task keeps its number of questions.
All seeds of a method answer the same questions; a drawn question brings its answers of all seeds and stages,
and what is measured is the mean over seeds, as in the report. Intervals and tests therefore speak of other
questions of the same kind; how much training varies is told by the spread over seeds.

Draws depend on the number of questions and `seed` only: every method meets the same ones.

Letters: N questions of a task, T tasks and stages, S seeds, B draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.scoring.continual import average_forgettings, final_accuracies

Array = NDArray[np.float64]
# (stage, task) -> (N,) 1 right, 0 wrong, NaN left out of the denominator; a task's questions in one order.
SampleScores = Mapping[tuple[int, int], Array]
Interval = tuple[float, float] | None  # low and high; None where a needed cell was not measured

DRAWS = 2000  # of the bootstrap
FLIPS = 10000  # of the sign-flip test: the smallest p is 1 / 10001
LEVEL = 0.95
_CHUNK = 100  # draws held at a time

FORMULAS: dict[str, str] = {
    "NAME_interval": f"{LEVEL:.0%} percentile bootstrap, {DRAWS} draws of test questions within each task",
    "p": f"two-sided paired sign-flip test of the difference in MA, {FLIPS} flips",
    "p_holm": "p after Holm's correction for all the methods tested",
    "mcnemar": "exact two-sided McNemar test of each seed and task at the last stage",
}


@dataclass(frozen=True)
class Intervals:
    """Bootstrap intervals of one method, percent."""

    MA: Interval
    AF: Interval
    matrix: tuple[tuple[Interval, ...], ...]  # T x T, as the accuracy matrix


@dataclass(frozen=True)
class Comparison:
    """One method against another on the same questions; positive: the first is ahead."""

    difference: float  # MA of the first minus MA of the second, percent points
    interval: Interval  # of the difference
    p: float  # two-sided, see sign_flip_p
    mcnemar: tuple[tuple[float, ...], ...]  # for each seed both have, for each task: see mcnemar_p


def intervals(seeds: Sequence[SampleScores], tasks: int) -> Intervals:
    """Intervals of every cell, of MA and of AF, each the mean over seeds.

    The percentile bootstrap: the (1 - LEVEL) / 2 and (1 + LEVEL) / 2 quantiles of the measure over B draws
    with replacement (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). A cell that is
    all right or all wrong has an interval of no width; by the rule of three 3 / N may still be otherwise.

    Raises ValueError if a task has different numbers of questions.
    """
    cells, MA, AF = [], [], []
    for R_BSTT in _redrawn(seeds, tasks):
        cells.append(R_BSTT.mean(axis=1))
        MA.append(final_accuracies(R_BSTT).mean(axis=1))
        AF.append(average_forgettings(R_BSTT).mean(axis=1))
    R_BTT = np.concatenate(cells)
    matrix = tuple(tuple(_interval(R_BTT[:, k, i]) for i in range(tasks)) for k in range(tasks))
    return Intervals(_interval(np.concatenate(MA)), _interval(np.concatenate(AF)), matrix)


def compare(first: Sequence[SampleScores], second: Sequence[SampleScores], tasks: int) -> Comparison | None:
    """Compare the final accuracy of two methods; None if either lacks a task at the last stage.

    The interval is the paired bootstrap's: both methods meet the same draws. With answers left out (NaN), the
    difference and p are over the questions that both have answered, and so may differ from that of the MAs.

    Raises ValueError if the methods answered different numbers of questions.
    """
    last = tasks - 1
    if any((last, i) not in scores for scores in (*first, *second) for i in range(tasks)):
        return None
    first, second = ([_at_stage(scores, last) for scores in seeds] for seeds in (first, second))
    means = [
        [_mean([scores[last, i] for scores in seeds]) for i in range(tasks)] for seeds in (first, second)
    ]
    differences = []
    for i, (ours, others) in enumerate(zip(*means, strict=True)):
        if len(ours) != len(others):
            raise ValueError(
                f"task {i}: one method answered {len(ours)} questions, the other {len(others)}; "
                "a paired test needs the same ones"
            )
        gap = ours - others
        differences.append(gap[~np.isnan(gap)])
    drawn = [
        np.concatenate([final_accuracies(R_BSTT).mean(axis=1) for R_BSTT in _redrawn(seeds, tasks)])
        for seeds in (first, second)
    ]
    return Comparison(
        difference=100.0 * float(np.mean([gap.mean() if len(gap) else 0.0 for gap in differences])),
        interval=_interval(drawn[0] - drawn[1]),
        p=sign_flip_p(differences),
        mcnemar=tuple(
            tuple(mcnemar_p(ours[last, i], others[last, i]) for i in range(tasks))
            for ours, others in zip(first, second, strict=False)
        ),
    )


def mcnemar_p(first_N: Array, second_N: Array) -> float:
    """Exact two-sided McNemar test of two methods' answers to the same N questions.

    p = min(1, 2 sum_{j <= min(b, c)} C(b + c, j) / 2^(b + c)), where the first method alone is right b times
    and the second alone c times (McNemar, Psychometrika 12, 1947; in its exact, binomial form). Questions
    that either left out (NaN) do not count. 1 where the methods never differ.
    """
    b = int(((first_N == 1) & (second_N == 0)).sum())
    c = int(((first_N == 0) & (second_N == 1)).sum())
    tail, term = 0, 1
    for j in range(min(b, c) + 1):
        tail += term
        term = term * (b + c - j) // (j + 1)
    return min(1.0, 2 * tail / 2 ** (b + c))


def sign_flip_p(differences: Sequence[Array], flips: int = FLIPS, seed: int = 0) -> float:
    """Two-sided sign-flip permutation test of D = mean over tasks of the mean difference of their questions.

    If two methods are equally good, a question's difference d_n is as likely -d_n: p is the share of sign
    patterns with |D*| >= |D|. All 2^n patterns of the n differences other than 0 where these are at most
    `flips`; else that many random ones, and then p = (1 + hits) / (1 + flips), so that p is never 0.
    On one task of one seed, where d is -1, 0 or 1, it is the exact McNemar test. Sources: Fisher's
    randomisation test; Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010, for the 1 in p.

    Args:
        differences: for each task (N,) first minus second, each from -1 to 1.
    """
    weighted = np.concatenate([gap / (len(differences) * max(len(gap), 1)) for gap in differences])
    weighted = weighted[weighted != 0]
    n, least = len(weighted), abs(weighted.sum()) - 1e-12  # sums in another order differ in the last bits
    if 2**n <= flips:
        flipped = np.arange(2**n)[:, None] >> np.arange(n) & 1
        return float((np.abs((1 - 2 * flipped) @ weighted) >= least).mean())
    rng, hits = np.random.default_rng(seed), 0
    for start in range(0, flips, _CHUNK):
        size = min(_CHUNK, flips - start)
        bits = np.unpackbits(np.frombuffer(rng.bytes(size * -(-n // 8)), np.uint8).reshape(size, -1), axis=1)
        hits += int((np.abs((1.0 - 2.0 * bits[:, :n]) @ weighted) >= least).sum())
    return (1 + hits) / (1 + flips)


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for testing m hypotheses at once: p_(j) = max_{i <= j} min(1, (m - i + 1) p_(i)).

    In the order given. Holm, Scand. J. Statist. 6, 1979.
    """
    corrected, highest = [0.0] * len(ps), 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - place) * ps[index]))
        corrected[index] = highest
    return corrected


def _redrawn(seeds: Sequence[SampleScores], tasks: int, seed: int = 0) -> Iterator[Array]:
    """Accuracy matrices of DRAWS draws in chunks, (B, S, T, T) percent, NaN for cells not measured."""
    sizes = [_size(seeds, i) for i in range(tasks)]
    streams = [np.random.default_rng([seed, i]) for i in range(tasks)]
    columns = [
        [(s, k, scores[k, i]) for s, scores in enumerate(seeds) for k in range(tasks) if (k, i) in scores]
        for i in range(tasks)
    ]
    tables = [np.stack([scores for *_, scores in cells], axis=1) if cells else None for cells in columns]
    for start in range(0, DRAWS, _CHUNK):
        B = min(_CHUNK, DRAWS - start)
        R_BSTT = np.full((B, len(seeds), tasks, tasks), np.nan)
        for i, (N, table) in enumerate(zip(sizes, tables, strict=True)):
            if table is None or not N:
                continue
            drawn = streams[i].integers(N, size=(B, N)) + N * np.arange(B)[:, None]
            times_BN = np.bincount(drawn.ravel(), minlength=B * N).reshape(B, N).astype(np.float64)
            answered = times_BN @ (~np.isnan(table)).astype(np.float64)
            accuracies = 100.0 * (times_BN @ np.nan_to_num(table)) / np.maximum(answered, 1)
            for column, (s, k, _) in enumerate(columns[i]):
                R_BSTT[:, s, k, i] = accuracies[:, column]
        yield R_BSTT


def _at_stage(scores: SampleScores, stage: int) -> SampleScores:
    return {(k, i): cell for (k, i), cell in scores.items() if k == stage}


def _size(seeds: Sequence[SampleScores], task: int) -> int:
    """Number of questions of a task, one for all stages and seeds."""
    found = sorted({len(cell) for scores in seeds for (_, i), cell in scores.items() if i == task})
    if len(found) > 1:
        raise ValueError(
            f"task {task}: cells of {found} questions; expected the same ones at every stage and seed"
        )
    return found[0] if found else 0


def _mean(rows: Sequence[Array]) -> Array:
    """Mean over seeds of what is not left out. (N,), NaN where all seeds left it out"""
    table = np.stack(rows)
    known = (~np.isnan(table)).sum(axis=0)
    return np.where(known > 0, np.nansum(table, axis=0) / np.maximum(known, 1), np.nan)


def _interval(values_B: Array) -> Interval:
    if np.isnan(values_B).any():
        return None
    low, high = np.quantile(values_B, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
