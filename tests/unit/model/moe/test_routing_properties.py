"""What routing must not depend on, on random tasks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.moe.anchors import Anchor
from model.moe.routing import Router, RouterConfig, RoutingFeatures

WHITENED, RAW, LDA = RouterConfig(), RouterConfig(metric="raw", modality_weights="equal"), RouterConfig("lda")
ONE_SPACE = RouterConfig(new_level=0.0)
"""Without the space for new words: that one hangs on the axes, and on distances that merged anchors lack."""
WIDTH = {"text": 6, "audio": 4}


def tasks_of(seed: int, number: int) -> list[dict[str, Tensor]]:
    """Features of `number` tasks: modality -> (N, W), some tasks without audio."""
    generator = torch.Generator().manual_seed(seed)
    tasks = []
    for task in range(number):
        count = int(torch.randint(2, 30, (1,), generator=generator))
        shift = 2 * torch.randn(len(WIDTH), generator=generator)
        features = {
            name: shift[i] + torch.randn(count, width, generator=generator)
            for i, (name, width) in enumerate(WIDTH.items())
        }
        if task and seed % 3 == 0:
            del features["audio"]
        tasks.append(features)
    return tasks


def samples_of(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed + 10_000)
    return {name: 3 * torch.randn(5, width, generator=generator) for name, width in WIDTH.items()}


def scores(tasks: dict[int, dict[str, Tensor]], samples: dict[str, Tensor], config: RouterConfig) -> Tensor:
    anchors = [Anchor.from_features(task, features) for task, features in tasks.items()]
    present = {name: torch.ones(len(value), dtype=torch.bool) for name, value in samples.items()}
    return Router(anchors, config).route(RoutingFeatures(samples, present)).scores


seeds = st.integers(0, 10_000)
numbers = st.integers(1, 5)


@pytest.mark.parametrize("config", [WHITENED, RAW, LDA])
@settings(max_examples=20, deadline=None)
@given(seed=seeds, number=numbers, order=st.randoms(use_true_random=False))
def test_task_order_does_not_matter(config: RouterConfig, seed: int, number: int, order) -> None:
    """Not even in the last bit."""
    tasks = dict(enumerate(tasks_of(seed, number)))
    shuffled = list(tasks)
    order.shuffle(shuffled)
    samples = samples_of(seed)
    assert torch.equal(
        scores(tasks, samples, config), scores({t: tasks[t] for t in shuffled}, samples, config)
    )


@settings(max_examples=20, deadline=None)
@given(seed=seeds, number=numbers, scale=st.floats(1e-3, 1e3))
def test_raw_cosine_ignores_the_length_of_a_sample(seed: int, number: int, scale: float) -> None:
    tasks, samples = dict(enumerate(tasks_of(seed, number))), samples_of(seed)
    longer = {name: scale * value.double() for name, value in samples.items()}
    torch.testing.assert_close(scores(tasks, longer, RAW), scores(tasks, samples, RAW), rtol=0, atol=1e-9)


@pytest.mark.parametrize("config", [ONE_SPACE, LDA])
@settings(max_examples=20, deadline=None)
@given(seed=seeds, number=numbers, scale=st.floats(1e-2, 1e2), shift=st.floats(-10, 10))
def test_units_origin_and_axes_of_a_modality_do_not_matter(
    config: RouterConfig, seed: int, number: int, scale: float, shift: float
) -> None:
    """Scaling, shifting and rotating one modality everywhere: shrinkage is towards a multiple of I."""
    tasks, samples = dict(enumerate(tasks_of(seed, number))), samples_of(seed)
    gaussian = torch.randn(6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rotation = torch.linalg.qr(gaussian).Q

    def moved(features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**features, "text": scale * features["text"].double() @ rotation + scale * shift}

    got = scores({task: moved(features) for task, features in tasks.items()}, moved(samples), config)
    torch.testing.assert_close(got, scores(tasks, samples, config), rtol=1e-6, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, number=st.integers(2, 5), cut=st.integers(1, 4))
def test_anchors_merged_from_parts_route_the_same(seed: int, number: int, cut: int) -> None:
    tasks, samples = dict(enumerate(tasks_of(seed, number))), samples_of(seed)
    whole = [Anchor.from_features(task, features) for task, features in tasks.items()]
    parts = []
    for task, features in tasks.items():
        cuts = (slice(cut), slice(cut, None))
        halves = [{name: value[rows] for name, value in features.items()} for rows in cuts]
        halves = [half for half in halves if any(len(value) for value in half.values())]
        made = [Anchor.from_features(task, half) for half in halves]
        parts.append(made[0] if len(made) == 1 else made[0].merged(made[1]))
    present = {name: torch.ones(len(value), dtype=torch.bool) for name, value in samples.items()}
    batch = RoutingFeatures(samples, present)
    got, expected = (Router(anchors, ONE_SPACE).route(batch).scores for anchors in (parts, whole))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-7)
