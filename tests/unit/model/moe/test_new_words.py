"""Questions in new words: compared in the broad space, and they alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.moe.anchors import Anchor
from model.moe.metric import cosines, fit_metric
from model.moe.new_words import (
    BROAD_SHRINKAGE,
    LEVEL,
    REWORDED_LEVEL,
    REWORDED_SHARE,
    REWORDED_SHRINKAGE,
    usual_level,
)
from model.moe.routing import Router, RouterConfig, RoutingFeatures

WIDTH, SAMPLES = 5, 80
COSINE = RouterConfig("cosine", modalities=("text",))


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def asked() -> list[Tensor]:
    """Three tasks around means of their own, unlike in their directions."""
    scale = torch.tensor([1.0, 0.5, 0.2, 0.1, 0.05])
    return [3 * torch.eye(WIDTH)[task] + scale * noise(SAMPLES, seed=task) for task in range(3)]


@pytest.fixture
def anchors(asked: list[Tensor]) -> list[Anchor]:
    return [Anchor.from_features(task, {"text": rows}) for task, rows in enumerate(asked)]


def batch(rows: Tensor) -> RoutingFeatures:
    return RoutingFeatures({"text": rows}, {"text": torch.ones(len(rows), dtype=torch.bool)})


def broad(anchors: list[Anchor], x: Tensor) -> Tensor:
    metric = fit_metric({a.task_id: a.stats["text"] for a in anchors}, BROAD_SHRINKAGE, "median")
    return cosines(metric.whiten(x.double()), metric.means)


def test_known_wordings_are_compared_as_ever(asked: list[Tensor], anchors: list[Anchor]) -> None:
    rows = torch.cat([rows.mean(0, keepdim=True) for rows in asked])
    scores = Router(anchors, COSINE).route(batch(rows)).scores
    assert scores.equal(Router(anchors, replace(COSINE, new_level=0.0)).route(batch(rows)).scores)


def test_new_ones_in_the_broad_space_whatever_the_batch(asked: list[Tensor], anchors: list[Anchor]) -> None:
    new = 9 + 4 * noise(4, seed=9)
    mixed = torch.cat([new[:2], asked[0].mean(0, keepdim=True), new[2:]])
    router = Router(anchors, COSINE)
    found = router.route(batch(mixed)).scores
    torch.testing.assert_close(found[[0, 1, 3, 4]], broad(anchors, new))
    assert not found[:2].allclose(
        Router(anchors, replace(COSINE, new_level=0.0)).route(batch(new[:2])).scores
    )
    assert torch.cat([router.route(batch(row[None])).scores for row in mixed]).equal(found)
    assert router.route(batch(mixed)).far.tolist()[2] is False
    assert router.new_words is not None
    assert router.new_words.among(batch(mixed)).tolist() == [True, True, False, True, True]
    assert Router(anchors, replace(COSINE, new_level=0.0)).new_words is None
    without = RoutingFeatures(
        {"text": mixed, "audio": mixed},
        {"text": torch.arange(5) < 2, "audio": torch.ones(5, dtype=torch.bool)},
    )
    assert router.new_words.among(without).tolist() == [True, True, False, False, False]


def test_rewordings_that_anchors_know_make_the_space(anchors: list[Anchor]) -> None:
    new = 9 + 4 * noise(3, seed=9)
    knowing = [
        anchor.with_rewordings(noise(6, seed=20 + task), torch.ones(6)) for task, anchor in enumerate(anchors)
    ]
    found = Router(knowing, COSINE).route(batch(new)).scores
    stats = {a.task_id: a.stats["text"].blended(REWORDED_SHARE) for a in knowing}
    metric = fit_metric(stats, REWORDED_SHRINKAGE, "median")
    torch.testing.assert_close(found, cosines(metric.whiten(new.double()), metric.means))
    # One anchor that knows none: all are taken as they are without.
    partly = Router([anchors[0], *knowing[1:]], COSINE).route(batch(new)).scores
    torch.testing.assert_close(partly, broad(anchors, new))


def test_the_usual_level_follows_the_anchors(anchors: list[Anchor]) -> None:
    """Whoever makes a router, command or library, finds the same questions new."""
    knowing = [anchor.with_rewordings(noise(6, seed=20), torch.ones(6)) for anchor in anchors]
    rows = torch.cat([anchors[0].means["text"] + 0.3 * noise(200, seed=30), 9 + 4 * noise(3, seed=9)])
    for known, level, other in ((anchors, LEVEL, 0.3), (knowing, REWORDED_LEVEL, 0.3)):
        found = Router(known, COSINE).route(batch(rows)).scores
        assert found.equal(Router(known, replace(COSINE, new_level=level)).route(batch(rows)).scores)
        assert not found.equal(Router(known, replace(COSINE, new_level=other)).route(batch(rows)).scores)
    assert usual_level([anchors[0], *knowing[1:]]) == LEVEL


def test_anchors_that_know_no_distances_find_nothing_new(anchors: list[Anchor]) -> None:
    new = 9 + 4 * noise(2, seed=9)
    old = [
        replace(a, stats={"text": replace(a.stats["text"], held_out=None, held_out_new=None)})
        for a in anchors
    ]
    plain = Router(anchors, replace(COSINE, new_level=0.0)).route(batch(new)).scores
    assert Router(old, COSINE).route(batch(new)).scores.equal(plain)
    with pytest.raises(ValueError, match=r"new_level: got 1\.0"):
        replace(COSINE, new_level=1.0)
