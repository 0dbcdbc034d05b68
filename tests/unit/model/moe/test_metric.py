"""The whitened space of one modality."""

import pytest
import torch
from torch import Tensor

from model.moe.anchors import ModalityStats
from model.moe.metric import cosines, fit_metric, squared_distances


def gaussian(count: int, width: int, seed: int, shift: float = 0.0) -> Tensor:
    scales = torch.linspace(0.2, 5, width)
    return shift + scales * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def stats_of(*tasks: Tensor) -> dict[int, ModalityStats]:
    return {number: ModalityStats.from_rows(task, "tower") for number, task in enumerate(tasks)}


def test_whitening_makes_the_within_task_covariance_the_identity() -> None:
    tasks = [gaussian(400, 6, 0), gaussian(300, 6, 1, 4.0)]
    metric = fit_metric(stats_of(*tasks), 1e-9)
    whitened = [metric.whiten(task) for task in tasks]
    scatter = sum((w - w.mean(0)).T @ (w - w.mean(0)) for w in whitened) / 698
    torch.testing.assert_close(scatter, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(metric.means, torch.stack([w.mean(0) for w in whitened]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(metric.means.mean(0), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-9)


def test_log_ratio_is_that_of_two_gaussians() -> None:
    tasks = [gaussian(60, 3, 0), gaussian(50, 3, 1, 1.0)]
    metric = fit_metric(stats_of(*tasks), 0.1)
    x = gaussian(7, 3, 2, 0.5)
    got = metric.log_ratio(x, squared_distances(metric.whiten(x), metric.means))
    rows = torch.cat(tasks).double()

    def shrunk(covariance: Tensor) -> Tensor:
        return 0.9 * covariance + 0.1 * covariance.diagonal().mean() * torch.eye(3, dtype=torch.float64)

    within = sum((t.double() - t.double().mean(0)).T @ (t.double() - t.double().mean(0)) for t in tasks) / 108
    total = torch.distributions.MultivariateNormal(rows.mean(0), shrunk(torch.cov(rows.T)))
    for task, rows in enumerate(tasks):
        own = torch.distributions.MultivariateNormal(rows.double().mean(0), shrunk(within))
        torch.testing.assert_close(got[:, task], own.log_prob(x.double()) - total.log_prob(x.double()))


def test_a_modality_that_does_not_tell_tasks_apart_has_little_weight() -> None:
    alike = fit_metric(stats_of(*(gaussian(200, 40, seed) for seed in range(4))), 0.01)
    apart = fit_metric(stats_of(*(gaussian(200, 40, seed, seed) for seed in range(4))), 0.01)
    assert alike.weight < 0.2 < 10 < apart.weight


@pytest.mark.parametrize("count", [30, 60, 2000])
def test_chance_is_taken_off_even_with_fewer_samples_than_dimensions(count: int) -> None:
    """S looks far too small at 60 samples; without the correction the weight would be many times larger."""
    width, weights = 80, []
    for seed in range(0, 40, 2):
        metric = fit_metric(stats_of(gaussian(count, width, seed), gaussian(count, width, seed + 1)), 0.05)
        weights.append(metric.weight)
    assert sum(weights) / len(weights) < 0.15 * metric.near * 2 / count


def test_expected_distance_of_a_new_sample() -> None:
    """The leave-one-out estimate, where samples are many and where they are few."""
    for count in (50, 1000):
        metric = fit_metric(stats_of(gaussian(count, 60, 0)), 0.05)
        fresh = squared_distances(metric.whiten(gaussian(3000, 60, 9)), metric.means).mean()
        assert float(fresh) == pytest.approx(metric.near, rel=0.25)


@pytest.mark.parametrize(
    "tasks",
    [
        [torch.ones(1, 5), 2 * torch.ones(1, 5)],  # one sample each
        [torch.ones(8, 5), torch.ones(8, 5)],  # no variance at all
        [torch.zeros(8, 5), torch.zeros(8, 5)],
        [torch.ones(8, 5), 2 * torch.ones(8, 5)],  # none within tasks
        [gaussian(9, 5, 0)] * 3,  # identical tasks
        [1e-20 * gaussian(9, 5, 0), 1e-20 * gaussian(9, 5, 1)],
        [1e15 * gaussian(9, 5, 0), 1e15 * gaussian(9, 5, 1)],
        [gaussian(3, 5, 0)],  # one task
    ],
)
def test_degenerate_tasks_give_finite_metrics(tasks: list[Tensor]) -> None:
    metric = fit_metric(stats_of(*tasks), 0.01)
    y = metric.whiten(tasks[0])
    distances = squared_distances(y, metric.means)
    for value in (y, distances, cosines(y, metric.means), metric.log_ratio(tasks[0], distances)):
        assert torch.isfinite(value).all()
    assert metric.weight >= 0 and metric.near >= 0


def test_tasks_that_differ_without_any_variance_weigh_much() -> None:
    assert fit_metric(stats_of(torch.ones(8, 5), 2 * torch.ones(8, 5)), 0.01).weight > 1e3
    assert fit_metric(stats_of(torch.ones(8, 5), torch.ones(8, 5)), 0.01).weight == 0
    assert fit_metric(stats_of(*[gaussian(9, 5, 0)] * 3), 0.01).weight == 0


def test_unequal_statistics_raise() -> None:
    with pytest.raises(ValueError, match="width of task 1 is 4, of task 0 5"):
        fit_metric(stats_of(torch.ones(2, 5), torch.ones(2, 4)), 0.01)
    mixed = {
        0: ModalityStats.from_rows(torch.ones(2, 5), "question"),
        1: ModalityStats.from_rows(torch.ones(2, 5), "prompt"),
    }
    with pytest.raises(ValueError, match="feature_kind of task 1 is 'prompt', of task 0 'question'"):
        fit_metric(mixed, 0.01)
