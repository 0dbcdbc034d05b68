"""Many tasks: does routing keep its accuracy, and what does it cost? Drawn features, for real tasks are few.

Letters: E tasks, N samples of each, W feature width.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from evaluation.router_exam.material import TEXT, bare_anchor
from model.moe.routing import Router, RouterConfig, RoutingFeatures

WIDTH = 128
SAMPLES = 64  # that an anchor is made of
ASKED = 256  # samples that are routed, drawn from all tasks
APART = 0.5  # standard deviation of the task means, in that of a task's samples
STRETCH = 3.0  # the widest direction of a task's samples has e^STRETCH times the variance of the narrowest


@dataclass(frozen=True)
class ManyTasks:
    """A router among many tasks."""

    tasks: int
    accuracy: float
    """Percent."""
    microseconds: float
    """Per sample, routed in one batch with what is computed once already there; differs from run to run."""


def many_tasks(config: RouterConfig, tasks: int, seed: int = 0) -> ManyTasks:
    """Gaussian tasks with one covariance, unequal along its axes, and means drawn in it."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0, STRETCH / 2, WIDTH, dtype=torch.float64).exp()

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, WIDTH, generator=generator, dtype=torch.float64)

    means = APART * draw(tasks)
    anchors = [bare_anchor(task, (means[task] + draw(SAMPLES)) * scale) for task in range(tasks)]
    router = Router(anchors, config)
    true = torch.randint(tasks, (ASKED,), generator=generator)
    values = (means[true] + draw(ASKED)) * scale
    features = RoutingFeatures(
        {TEXT: values}, {TEXT: torch.ones(ASKED, dtype=torch.bool)}, {TEXT: "question"}
    )
    router.route(features)  # what is computed once
    start = time.perf_counter()
    routing = router.route(features)
    took = time.perf_counter() - start
    right = [task == own for task, own in zip(routing.task_ids, true.tolist(), strict=True)]
    return ManyTasks(tasks, 100 * sum(right) / ASKED, 1e6 * took / ASKED)
