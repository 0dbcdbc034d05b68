"""How far two ways of scoring the same answers agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Agreement:
    """Agreement of two scorers on N answers; None without answers."""

    percent: float | None  # answers that both call right or both call wrong
    kappa: float | None  # Cohen's, 1 full agreement, 0 that of chance; None where chance alone agrees fully


def agreement(first_N: NDArray[np.bool_], second_N: NDArray[np.bool_]) -> Agreement:
    """kappa = (p_o - p_e) / (1 - p_e), p_e = a b + (1 - a)(1 - b) (Cohen, Educ. Psychol. Meas. 20, 1960).

    p_o is the share agreed on; p_e what scorers that call the shares a and b right would agree on by chance.

    Raises ValueError if the lengths differ.
    """
    if len(first_N) != len(second_N):
        raise ValueError(f"{len(first_N)} scores against {len(second_N)}; the lengths must be equal")
    if not len(first_N):
        return Agreement(None, None)
    observed = float((first_N == second_N).mean())
    a, b = float(first_N.mean()), float(second_N.mean())
    chance = a * b + (1 - a) * (1 - b)
    return Agreement(100 * observed, (observed - chance) / (1 - chance) if chance < 1 else None)
