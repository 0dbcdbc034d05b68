"""Routing among many anchors, by the published rule and by the default one, against a prefill of 660 tokens.

Published: raw cosine with equal weights, 10,000 anchors of mean features alone. Default: whitened cosine with
informative weights, questions in new words and what is far told by the tasks' held-out distances. An anchor
then has second-order statistics, width x width numbers a modality, so there are 10,000 tasks of narrow
features (1 GB) or 100 of wide ones (0.8 GB). The first question of a task takes longer than those after it:
the task's own space, an eigendecomposition for each modality, is made then. Samples are near their task; one
that is far from its best task is compared with all of them, which is not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import torch
from torch import Tensor, nn

from model.moe.anchors import Anchor, ModalityStats
from model.moe.far import held_out_distances
from model.moe.routing import Router, RouterConfig, RoutingFeatures
from scripts.benchmark.timing import medians, working_dtype

MODALITIES = ("text", "video", "audio")
ANCHORS = 10_000
MANY = 16  # samples of a batch
SAMPLES = 20  # of a task
PREFILL = 660  # tokens
WITH_STATISTICS = ((10_000, 64), (100, 576))  # tasks, width of a feature
NEAR = 0.5  # spread of new samples about their task's mean, where that of its own is 1


def routing(llm: nn.Module, width: int, rounds: int) -> dict[str, float]:
    """Seconds over those of a prefill, by name; llm: of this width."""
    prompt = torch.randn(1, PREFILL, width, dtype=working_dtype())
    sides: dict[str, Callable[[], object]] = {
        "prefill": lambda: llm.base_model(inputs_embeds=prompt, use_cache=True)
    }
    raw = raw_router(width)
    one, many = (features({name: torch.randn(n, width) for name in MODALITIES}) for n in (1, MANY))
    sides |= {
        f"routing_{ANCHORS}_one_sample": lambda: raw.route(one),
        f"routing_{ANCHORS}_batch_of_{MANY}_per_sample": lambda: raw.route(many),
        f"routing_{ANCHORS}_one_sample_and_all_scores": lambda: raw.route(one).scores,
    }
    for tasks, size in WITH_STATISTICS:
        name = f"routing_default_{tasks}_tasks_width_{size}"
        sides |= default_sides(name, default_router(tasks, size))
    seconds = medians(sides, rounds)
    prefill = seconds.pop("prefill")
    rows = {name: MANY if name.endswith("_per_sample") else 1 for name in seconds}
    return {f"{name}_over_prefill": taken / rows[name] / prefill for name, taken in seconds.items()}


def features(values: dict[str, Tensor]) -> RoutingFeatures:
    """Samples that have all modalities."""
    return RoutingFeatures(
        values, {name: torch.ones(len(value), dtype=torch.bool) for name, value in values.items()}
    )


def raw_router(width: int) -> Router:
    """The published rule among anchors without statistics."""
    drawn = {name: torch.randn(ANCHORS, width, dtype=torch.float64) for name in MODALITIES}
    anchors = [
        Anchor(task, None, {name: drawn[name][task] for name in MODALITIES}) for task in range(ANCHORS)
    ]
    return Router(anchors, RouterConfig("cosine", "raw", "equal"))


def default_router(tasks: int, width: int) -> Router:
    """The default rule. The held-out distances of the first task stand for those of the others, which are
    drawn from the same distribution about other means."""
    held_out = held_out_distances(torch.randn(SAMPLES, width, dtype=torch.float64))
    anchors = []
    for task in range(tasks):
        stats = {}
        for name in MODALITIES:
            rows = torch.randn(width, dtype=torch.float64) + torch.randn(SAMPLES, width, dtype=torch.float64)
            new = held_out if name == "text" else None
            stats[name] = ModalityStats(
                SAMPLES, rows.sum(0), rows.T @ rows, "tower", held_out=held_out, held_out_new=new
            )
        anchors.append(Anchor.from_stats(task, None, stats))
    return Router(anchors, RouterConfig())


def default_sides(name: str, router: Router) -> dict[str, Callable[[], object]]:
    """A sample of a task that was asked before, and samples of tasks that were not."""
    known = near(router.anchors[0])
    fresh = samples_of_new_tasks(router)
    return {
        f"{name}_one_sample": lambda: router.route(known),
        f"{name}_first_of_its_task": lambda: router.route(next(fresh)),
    }


def samples_of_new_tasks(router: Router) -> Iterator[RoutingFeatures]:
    """A sample of each task but the first."""
    for place in count(1):
        yield near(router.anchors[place])


def near(anchor: Anchor) -> RoutingFeatures:
    """A sample near a task."""
    return features(
        {name: (mean + NEAR * torch.randn(len(mean)))[None].float() for name, mean in anchor.means.items()}
    )
