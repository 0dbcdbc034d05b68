"""Optimisers and learning rate schedules by the published names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LRScheduler,
    ReduceLROnPlateau,
    StepLR,
)

OPTIMISERS: dict[str, type[Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "sgd": SGD,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
}
SCHEDULES = ("step", "cos", "exp", "reduce", "none")
WITH_MOMENTUM = ("sgd", "rmsprop")


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and schedule; the schedule moves once an epoch."""

    optim: str = "adam"
    lr: float = 1e-4
    weight_decay: float = 1e-5
    momentum: float = 0.9  # sgd and rmsprop
    scheduler: str = "step"
    step_size: int = 100  # step: epochs between drops
    gamma: float = 0.5  # step, exp, reduce: factor
    eta_min: float = 0.0  # cos, reduce: lowest learning rate
    T_max: int | None = None  # cos: epochs to the lowest; None: all epochs
    patience: int = 10  # reduce: epochs without improvement

    def __post_init__(self) -> None:
        if self.optim not in OPTIMISERS:
            raise ValueError(f"optim {self.optim!r}; expected one of {', '.join(OPTIMISERS)}")
        if self.scheduler not in SCHEDULES:
            raise ValueError(f"scheduler {self.scheduler!r}; expected one of {', '.join(SCHEDULES)}")
        for name in ("lr", "gamma"):
            if not 0 < getattr(self, name) < inf:
                raise ValueError(f"{name} {getattr(self, name)}; expected a positive number")
        for name in ("weight_decay", "momentum", "eta_min", "patience"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} {getattr(self, name)}; expected 0 or a positive number")
        if self.step_size < 1 or (self.T_max is not None and self.T_max < 1):
            raise ValueError(f"step_size {self.step_size}, T_max {self.T_max}; expected at least 1 epoch")


def make_optimizer(config: OptimConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimiser of a configuration."""
    settings: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optim in WITH_MOMENTUM:
        settings["momentum"] = config.momentum
    return OPTIMISERS[config.optim](list(parameters), **settings)


class Schedule:
    """Learning rate over the epochs; `step` once after each."""

    def __init__(self, config: OptimConfig, optimizer: Optimizer, epochs: int) -> None:
        self._rule: LRScheduler | ReduceLROnPlateau | None = None
        if config.scheduler == "step":
            self._rule = StepLR(optimizer, config.step_size, config.gamma)
        elif config.scheduler == "cos":
            self._rule = CosineAnnealingLR(optimizer, config.T_max or max(epochs, 1), config.eta_min)
        elif config.scheduler == "exp":
            self._rule = ExponentialLR(optimizer, config.gamma)
        elif config.scheduler == "reduce":
            self._rule = ReduceLROnPlateau(
                optimizer, factor=config.gamma, patience=config.patience, min_lr=config.eta_min
            )

    def step(self, validation: float) -> None:
        """validation: what `reduce` waits for to fall."""
        if isinstance(self._rule, ReduceLROnPlateau):
            self._rule.step(validation)
        elif self._rule is not None:
            self._rule.step()

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""
        return {} if self._rule is None else plain(self._rule.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        if self._rule is not None:
            self._rule.load_state_dict(state)


def plain(state: dict[str, Any]) -> dict[str, Any]:
    """Without what a file of plain values cannot hold."""
    kept = (int, float, bool, str, list, dict, torch.Tensor, type(None))
    return {key: value for key, value in state.items() if isinstance(value, kept)}
