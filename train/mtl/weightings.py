"""How the gradients of several tasks become one.

A weighting turns losses, and where it needs them the inner products of the tasks' gradients, into one
coefficient a task. The trainer multiplies gradients with them; nothing here sees a parameter of the model, so
a weighting is a function of T numbers and a T x T matrix.

    shared parameters   grad = sum_t shared_t  dL_t
    a task's own        grad = own_t dL_t

Weightings by losses (EW, UW, DWA, RLW, GradNorm, FAMO) use the same coefficients for both, weightings by
gradients (gradient_weightings.py) leave a task's own gradient as it is; both as in LibMTL.

Legend: T tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Coefficients(NamedTuple):
    """Factors of the tasks' gradients, (T,) each."""

    shared: Tensor
    own: Tensor


class Weighting(nn.Module):
    """Base class. Parameters it learns are trained by the model's optimiser; `coefficients` sets their
    gradient.
    """

    needs_gramian = False

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.tasks = tasks

    def begin_epoch(self, history: Sequence[Sequence[float]]) -> None:
        """history: mean training losses of the epochs so far, T numbers each."""

    def ahead(self) -> Tensor | None:
        """Coefficients of this step where they do not depend on its losses; then forward and backward can go
        task by task. Called once a step, before `coefficients`.
        """
        return None

    def coefficients(self, losses: Tensor, gramian: Tensor | None) -> Coefficients:
        """Coefficients of this step.

        losses: (T,), detached; gramian: inner products of the tasks' gradients with respect to the shared
        parameters (T, T), None unless `needs_gramian`. All on the CPU.
        """
        raise NotImplementedError


class EW(Weighting):
    """Equal weights: the sum of the losses."""

    def ahead(self) -> Tensor | None:
        return torch.ones(self.tasks)

    def coefficients(self, losses: Tensor, gramian: Tensor | None) -> Coefficients:
        ones = torch.ones_like(losses)
        return Coefficients(ones, ones)


class UW(Weighting):
    """Uncertainty weighting (Kendall et al., CVPR 2018): sum_t L_t / (2 exp(s_t)) + s_t / 2, s_t learned."""

    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        self.loss_scale = nn.Parameter(torch.full((tasks,), -0.5))

    def ahead(self) -> Tensor | None:
        return torch.exp(-self.loss_scale.detach()) / 2

    def coefficients(self, losses: Tensor, gramian: Tensor | None) -> Coefficients:
        weights = torch.exp(-self.loss_scale.detach()) / 2
        self.loss_scale.grad = 0.5 - weights * losses
        return Coefficients(weights, weights)


class DWA(Weighting):
    """Dynamic weight average (Liu et al., CVPR 2019): T softmax(r / temperature), r_t = L_t of the last epoch
    over that of the one before; equal in the first two epochs.
    """

    weights: Tensor

    def __init__(self, tasks: int, T: float = 2.0) -> None:
        super().__init__(tasks)
        self.temperature = T
        self.register_buffer("weights", torch.ones(tasks))

    def begin_epoch(self, history: Sequence[Sequence[float]]) -> None:
        weights = torch.ones(self.tasks, dtype=torch.float64)
        if len(history) > 1:
            before, last = torch.tensor(history[-2:], dtype=torch.float64)
            weights = self.tasks * torch.softmax(last / before.clamp(min=1e-12) / self.temperature, 0)
        self.weights.copy_(weights)

    def ahead(self) -> Tensor | None:
        return self.weights

    def coefficients(self, losses: Tensor, gramian: Tensor | None) -> Coefficients:
        return Coefficients(self.weights, self.weights)


class RLW(Weighting):
    """Random loss weighting (Lin et al., TMLR 2022): softmax of a normal draw for every step."""

    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        self.drawn = torch.ones(tasks) / tasks

    def ahead(self) -> Tensor | None:
        self.drawn = torch.softmax(torch.randn(self.tasks), 0)
        return self.drawn

    def coefficients(self, losses: Tensor, gramian: Tensor | None) -> Coefficients:
        return Coefficients(self.drawn, self.drawn)


class GradNorm(Weighting):
    """Gradient normalisation (Chen et al., ICML 2018): w = T softmax(s); s follows the gradient of
    sum_t |w_t ||g_t|| - G r_t^alpha|, G = mean_t w_t ||g_t||, r_t = the share of its first loss that task t
    still has, over the tasks' mean. Starts with the second epoch.
    """

    needs_gramian = True

    first: Tensor

    def __init__(self, tasks: int, alpha: float = 1.5) -> None:
        super().__init__(tasks)
        self.alpha = alpha
        self.loss_scale = nn.Parameter(torch.ones(tasks))
        self.register_buffer("first", torch.zeros(tasks))

    def begin_epoch(self, history: Sequence[Sequence[float]]) -> None:
        self.first.copy_(torch.tensor(history[0] if history else [0.0] * self.tasks))

    def coefficients(self, losses: Tensor, gramian: Tensor | None) -> Coefficients:
        assert gramian is not None
        weights = self.tasks * torch.softmax(self.loss_scale, 0)
        if self.first.all():
            norms = weights * gramian.diagonal().clamp(min=0).sqrt().to(weights)
            rate = losses / self.first
            target = norms.mean() * (rate / rate.mean()) ** self.alpha
            (self.loss_scale.grad,) = torch.autograd.grad(
                (norms - target.detach()).abs().sum(), self.loss_scale
            )
        weights = weights.detach()
        return Coefficients(weights, weights)


class FAMO(Weighting):
    """Fast adaptive multi-task optimisation (Liu et al., NeurIPS 2023): the gradient of
    c sum_t z_t log L_t, z = softmax(w), 1 / c = sum_t z_t / L_t. After the step w follows how much each
    log-loss fell; that is seen with the next batch, which saves a forward pass.
    """

    EPS = 1e-8
    w: Tensor
    previous: Tensor

    def __init__(self, tasks: int, FAMO_w_lr: float = 0.025, FAMO_w_gamma: float = 1e-3) -> None:
        super().__init__(tasks)
        self.register_buffer("w", torch.zeros(tasks))
        self.register_buffer("previous", torch.zeros(tasks))
        self._optimizer = torch.optim.Adam([self.w], lr=FAMO_w_lr, weight_decay=FAMO_w_gamma)

    def coefficients(self, losses: Tensor, gramian: Tensor | None) -> Coefficients:
        self.follow(losses)
        self.previous.copy_(losses)
        shares = torch.softmax(self.w, 0) / (losses + self.EPS)
        weights = shares / shares.sum()
        return Coefficients(weights, weights)

    def follow(self, losses: Tensor) -> None:
        """Step w along the gradient of softmax(w) . fall of the log-losses since the last step. Called by
        `coefficients` with the next batch; whoever measures the same batch again may call it before.
        """
        if not self.previous.any():
            return
        fall = torch.log(self.previous + self.EPS) - torch.log(losses + self.EPS)
        self.previous.zero_()
        z = torch.softmax(self.w, 0)
        self.w.grad = z * (fall - (z * fall).sum())
        self._optimizer.step()

    def get_extra_state(self) -> dict[str, Any]:
        return copy.deepcopy(self._optimizer.state_dict())

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(state)
