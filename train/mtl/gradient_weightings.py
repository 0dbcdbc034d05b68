"""Weightings by the inner products of the tasks' gradients, computed by the library torchjd.

Settings under which they agree with LibMTL (tests/parity/aoe_weightings.py):

    MGDA         not torchjd's Frank-Wolfe but quadprog, torchjd's own projector for UPGrad (see the class)
    CAGrad       norm_eps as good as 0, then divided by 1 (rescale 0), 1 + c^2 (1) or 1 + c (2)
    Aligned-MTL  preference vector of ones; in float32, where its rank test drops what is rounding noise
    IMTL         IMTL-G on losses exp(s) L, s learned
    Nash-MTL     gets a square root of the inner products instead of the gradients

All but Aligned-MTL compute in float64. Legend: T tasks, G their inner products (T, T).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import quadprog
import torch
from torch import Tensor, nn
from torchjd.aggregation import (
    AlignedMTLWeighting,
    CAGradWeighting,
    IMTLGWeighting,
    NashMTL,
    PCGradWeighting,
    UPGradWeighting,
)

from train.mtl.weightings import Coefficients, Weighting

MGDA_NORMALISATIONS = ("none", "l2", "loss", "loss+")


class GradientWeighting(Weighting):
    """Base class: coefficients of the shared gradients from their inner products."""

    needs_gramian = True

    def coefficients(self, losses: Tensor, gramian: Tensor | None) -> Coefficients:
        assert gramian is not None
        ones = torch.ones_like(losses)
        if not gramian.any():  # nothing was measured for any task, or no parameter is shared
            return Coefficients(ones, ones)
        shared = self.solve(gramian.detach().double().cpu(), losses.detach().double().cpu())
        return Coefficients(shared.to(losses), ones)

    def solve(self, gramian: Tensor, losses: Tensor) -> Tensor:
        """Coefficients (T,) in float64 on the CPU; of the tasks at least one has a gradient."""
        raise NotImplementedError


class PCGrad(GradientWeighting):
    """Projecting conflicting gradients, in a random order (Yu et al., NeurIPS 2020)."""

    def solve(self, gramian: Tensor, losses: Tensor) -> Tensor:
        return PCGradWeighting()(gramian)


class MGDA(GradientWeighting):
    """Multiple-gradient descent (Sener and Koltun, NeurIPS 2018): the shortest convex combination, after the
    gradients were divided by their norm (`l2`), their loss (`loss`), or both (`loss+`). A task whose norm or
    loss is 0 is not divided; where it has no gradient, 0 is the shortest, and so is the step.

    The solver is quadprog on the inner products (exact), not torchjd's Frank-Wolfe with epsilon 1e-9 and 5000
    iterations: that stays 3.6e-3 from the recorded coefficients on the nearly parallel problem for `loss` and
    `loss+`, where 1e-3 is allowed. On all other recorded problems it agrees within 1e-3.
    """

    def __init__(self, tasks: int, mgda_gn: str = "none") -> None:
        super().__init__(tasks)
        if mgda_gn not in MGDA_NORMALISATIONS:
            raise ValueError(f"mgda_gn {mgda_gn!r}; expected one of {', '.join(MGDA_NORMALISATIONS)}")
        self.normalisation = mgda_gn

    def solve(self, gramian: Tensor, losses: Tensor) -> Tensor:
        size = torch.ones_like(losses)
        if self.normalisation in ("l2", "loss+"):
            size = size * gramian.diagonal().sqrt()
        if self.normalisation in ("loss", "loss+"):
            size = size * losses
        scale = torch.where(size > torch.finfo(torch.float32).tiny, 1 / size, 1.0)
        return scale * shortest(scale[:, None] * gramian * scale)


def shortest(gramian: Tensor) -> Tensor:
    """Weights w >= 0, sum w = 1, of the shortest convex combination. (T, T) -> (T,)"""
    G = gramian.numpy() / max(float(gramian.trace()), np.finfo(np.float64).tiny)
    T = len(G)
    constraints, bounds = np.concatenate([np.ones((T, 1)), np.eye(T)], 1), np.eye(1, T + 1)[0]
    # the solver wants a positive definite matrix; the shift is far below the accuracy of the gradients
    weights = quadprog.solve_qp(G + 1e-12 * np.eye(T), np.zeros(T), constraints, bounds, meq=1)[0]
    return torch.from_numpy(weights)


class CAGrad(GradientWeighting):
    """Conflict-averse gradient descent (Liu et al., NeurIPS 2021); the worst off among the tasks that have a
    gradient.
    """

    def __init__(self, tasks: int, calpha: float = 0.5, rescale: int = 1) -> None:
        super().__init__(tasks)
        divisors = {0: 1.0, 1: 1 + calpha**2, 2: 1 + calpha}
        if rescale not in divisors:
            raise ValueError(f"rescale {rescale}; expected 0, 1 or 2")
        self._divisor = divisors[rescale]
        self._solver = CAGradWeighting(calpha, norm_eps=np.finfo(np.float64).tiny)

    def solve(self, gramian: Tensor, losses: Tensor) -> Tensor:
        moving = gramian.diagonal().nonzero()[:, 0]
        weights = torch.zeros_like(losses)
        # one without a gradient has nothing to gain or lose; its share of the mean gradient stays
        found = self._solver(gramian[moving][:, moving]) * len(moving) / len(losses)
        weights[moving] = found / self._divisor
        return weights


class Nash_MTL(GradientWeighting):
    """Bargaining solution (Navon et al., ICML 2022); the step is clipped to `max_norm` (0: not at all)."""

    def __init__(
        self, tasks: int, update_weights_every: int = 1, optim_niter: int = 20, max_norm: float = 1.0
    ) -> None:
        super().__init__(tasks)
        self._solver: Any = NashMTL(tasks, max_norm, update_weights_every, optim_niter).weighting

    def solve(self, gramian: Tensor, losses: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(gramian)
        root = vectors * values.clamp(min=0).sqrt()  # root root^T = G, all that the solver uses
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the solver's own, about its parameters and its accuracy
            return self._solver(root)

    def get_extra_state(self) -> dict[str, Any]:
        return {"step": self._solver.step, "weights": list(map(float, self._solver.prvs_alpha))}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if state["step"]:
            self._solver._init_optim_problem()
        self._solver.step = state["step"]
        self._solver.prvs_alpha = np.array(state["weights"])


class IMTL(GradientWeighting):
    """Impartial learning (Liu et al., ICLR 2021): equal projections of the result on the gradients of the
    losses exp(s_t) L_t - s_t, s_t learned.
    """

    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        self.loss_scale = nn.Parameter(torch.zeros(tasks))

    def coefficients(self, losses: Tensor, gramian: Tensor | None) -> Coefficients:
        assert gramian is not None
        scale = self.loss_scale.detach().exp().to(losses)
        self.loss_scale.grad = (scale * losses - 1).to(self.loss_scale)
        if not gramian.any():
            return Coefficients(scale, scale)
        wide = scale.double().cpu()
        weights = IMTLGWeighting()(wide[:, None] * gramian.detach().double().cpu() * wide)
        return Coefficients(weights.to(losses) * scale, scale)


class Aligned_MTL(GradientWeighting):
    """Aligned-MTL (Senushkin et al., CVPR 2023), with equal preferences that sum to T."""

    def solve(self, gramian: Tensor, losses: Tensor) -> Tensor:
        return AlignedMTLWeighting(torch.ones(self.tasks))(gramian.float()).double()


class UPGrad(GradientWeighting):
    """Unconflicting projection of gradients (Quinton and Rey, 2024); torchjd's own method."""

    def solve(self, gramian: Tensor, losses: Tensor) -> Tensor:
        return UPGradWeighting()(gramian)
