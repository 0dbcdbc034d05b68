"""What counts as far: held-out distances, their quantiles, and samples compared with them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.moe.anchors import Anchor
from model.moe.far import (
    SHRINKAGE,
    FarCheck,
    OwnSpace,
    exceeded_by,
    held_out_distances,
    new_value_distances,
)
from model.moe.routing import Router, RouterConfig, RoutingFeatures


def gaussian(count: int, width: int, seed: int, shift: float = 0.0) -> Tensor:
    scales = torch.linspace(0.2, 5, width)
    return (
        shift + scales * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    ).double()


def space_of(x: Tensor) -> OwnSpace:
    return OwnSpace.fit(len(x), x.sum(0), x.T @ x)


def test_distances_are_those_of_the_shrunk_covariance() -> None:
    x, fresh = gaussian(40, 5, 0, 3.0), gaussian(6, 5, 1)
    covariance = torch.cov(x.T)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * covariance.diagonal().mean() * torch.eye(5)
    off = fresh - x.mean(0)
    torch.testing.assert_close(space_of(x).distances(fresh), (off @ shrunk.inverse() * off).sum(1))


def test_every_clip_is_measured_from_the_others() -> None:
    """Three clips: three folds, each sample against the samples of the other two clips."""
    x, clips = gaussian(12, 4, 0), [f"clip{row % 3}" for row in range(12)]
    expected = []
    for clip in range(3):
        others = torch.tensor([row % 3 != clip for row in range(12)])
        expected.append(space_of(x[others]).distances(x[~others]))
    torch.testing.assert_close(held_out_distances(x, clips), torch.cat(expected).sort().values)


def test_every_value_is_measured_from_the_other_values_once() -> None:
    values = gaussian(3, 4, 0)
    x = values[[0, 0, 0, 0, 1, 1, 2]]
    expected = []
    for value in range(3):
        others = x[(x != values[value]).any(1)]
        expected.append(space_of(others).distances(values[value][None]))
    torch.testing.assert_close(new_value_distances(x), torch.cat(expected).sort().values)
    assert len(new_value_distances(values[[1, 1]])) == 0


def test_a_question_in_other_words_is_far_only_where_wordings_are_known() -> None:
    wordings = gaussian(60, 30, 0)
    asked, others = wordings[:20], wordings[20:]
    anchor = Anchor.from_features(0, {"text": asked.repeat(20, 1)})
    found = {}
    for choice in ("new", "known"):
        check = FarCheck([anchor], ("text",), 0.05, choice)
        assert not check.is_far({"text": asked[3]}, [0]) and check.is_far({"text": others[0] + 1e4}, [0])
        found[choice] = sum(check.is_far({"text": other}, [0]) for other in others)
    assert found["new"] <= 6 and found["known"] == len(others), found


def test_order_of_the_samples_does_not_matter_and_one_clip_says_nothing() -> None:
    x, clips = gaussian(30, 4, 0), [str(row // 2) for row in range(30)]
    found = held_out_distances(x, clips)
    assert len(found) == 30 and torch.equal(found, found.sort().values)
    torch.testing.assert_close(held_out_distances(x.flip(0), clips[::-1]), found)
    assert len(held_out_distances(x, ["same"] * 30)) == 0
    with pytest.raises(ValueError, match="30 samples of 2 clips"):
        held_out_distances(x, ["a", "b"])


def test_clips_asked_about_twice_do_not_make_the_threshold_too_small() -> None:
    """Every clip stands there eight times: sample by sample its copies would vouch for it."""
    clips = gaussian(60, 40, 0)
    x, names = clips.repeat(8, 1), [str(row % 60) for row in range(480)]
    fresh = space_of(x).distances(gaussian(4000, 40, 1))
    for known, fair in ((names, True), (None, False)):
        share = float((fresh > exceeded_by(0.05, held_out_distances(x, known))).double().mean())
        assert (share < 0.1) == fair, share


@pytest.mark.parametrize("count", [60, 200, 2000])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_the_share_of_ordinary_samples_is_near_the_level(count: int, level: float) -> None:
    """Also where there are hardly more samples than dimensions, and tails are heavier than a Gaussian's."""
    shares = []
    for seed in range(6):
        x, fresh = gaussian(count + 2000, 50, seed).split([count, 2000])
        heavy = torch.rand(count + 2000, generator=torch.Generator().manual_seed(seed)).double() ** -0.3
        threshold = exceeded_by(level, held_out_distances(x * heavy[:count, None]))
        far = space_of(x * heavy[:count, None]).distances(fresh * heavy[count:, None]) > threshold
        shares.append(float(far.double().mean()))
    assert level / 3 < sum(shares) / len(shares) < 2.5 * level


def test_quantiles() -> None:
    distances = torch.arange(1.0, 100.0).double()  # 1 to 99
    assert exceeded_by(0.05, distances) == 95.0  # 4 of 99 are beyond: 5 of 100 with the new one
    assert exceeded_by(0.01, distances) == 99.0
    exponent = torch.arange(91.0, 100.0).div(90).log().mean()
    assert exceeded_by(0.0025, distances) == pytest.approx(99 * 4 ** float(exponent))
    assert exceeded_by(0.01, distances[:1]) == float("inf")
    assert exceeded_by(0.01, torch.zeros(50).double()) == pytest.approx(1e-3)  # rounding is not far


def anchors() -> list[Anchor]:
    """Two tasks that differ in `text`; `audio` is noise, and task 1 has none."""
    return [
        Anchor.from_features(0, {"text": gaussian(300, 6, 0), "audio": gaussian(300, 4, 1)}),
        Anchor.from_features(1, {"text": gaussian(300, 6, 2, 60.0)}),
    ]


def test_any_shared_modality_makes_far_and_absent_ones_do_not_count() -> None:
    check = FarCheck(anchors(), ("text", "audio"), 0.01, "known")
    near, off = torch.zeros(6).double(), torch.full((4,), 1e4).double()
    assert not check.is_far({"text": near, "audio": torch.zeros(4).double()}, [0, 1])
    assert check.is_far({"text": near, "audio": off}, [0, 1])
    assert not check.is_far({"text": near + 60, "audio": off}, [0, 1])  # task 1 has no audio to be far in
    assert not check.is_far({"text": near}, [0, 1]) and check.is_far({"text": near + 25}, [0, 1])
    assert check.is_far({"audio": off}, [1, 0]) and check.excess(1, {"audio": off}) == float("inf")
    assert not FarCheck(anchors(), ("text",), 0.01, "known").is_far({"text": near, "audio": off}, [0, 1])


def test_the_unit_of_a_distance_is_the_mean_of_the_held_out_ones() -> None:
    made = anchors()
    check = FarCheck(made, ("text", "audio"), 0.01, "known")
    near, off = torch.zeros(6).double(), torch.full((4,), 1e4).double()
    text, audio = (float(made[0].stats[name].held_out.mean()) for name in ("text", "audio"))
    level = 0.01 / 2
    sample = {"text": near + 9, "audio": off}
    for name, mean in (("text", text), ("audio", audio)):
        threshold = exceeded_by(level, made[0].stats[name].held_out)
        one = FarCheck(made, (name,), level, "known")
        assert one.relative_distance(0, sample) == pytest.approx(one.excess(0, sample) * threshold / mean)
    assert check.relative_distance(0, sample) == max(
        FarCheck(made, (name,), 0.5, "known").relative_distance(0, sample) for name in ("text", "audio")
    )
    new = FarCheck(made, ("text", "audio"), 0.2, "new")
    assert new.relative_distance(0, sample) == check.relative_distance(0, sample)
    assert check.relative_distance(1, {"audio": off}) == float("inf")
    published = replace(made[0], stats={})
    assert FarCheck([published], ("text",), 0.01, "known").relative_distance(0, sample) == 0


def test_thresholds_stay_when_tasks_are_added() -> None:
    x = gaussian(1, 6, 5, 3.0)[0]
    alone, both = (
        FarCheck(anchors()[:count], ("text",), 0.01, "known").excess(0, {"text": x}) for count in (1, 2)
    )
    assert alone == both > 0


def test_a_router_keeps_near_the_level_and_finds_a_task_that_it_never_saw() -> None:
    made = [Anchor.from_features(t, {"text": gaussian(150, 30, t, 9.0 * t)}) for t in range(3)]
    router = Router(made, RouterConfig(far_level=0.05, wordings="known"))

    def share(seed: int, shift: float) -> float:
        x = gaussian(400, 30, seed, shift)
        there = torch.ones(len(x), dtype=torch.bool)
        return float(router.route(RoutingFeatures({"text": x}, {"text": there})).far.double().mean())

    assert sum(share(7 + t, 9.0 * t) for t in range(3)) / 3 < 0.1
    assert share(12, 40.0) == 1.0


@pytest.mark.parametrize(
    "x", [torch.ones(8, 5), torch.zeros(8, 5), 1e15 * gaussian(9, 5, 0), torch.ones(2, 3)]
)
def test_degenerate_features_are_near_themselves(x: Tensor) -> None:
    anchor = Anchor.from_features(0, {"text": x})
    check = FarCheck([anchor], ("text",), 0.01, "known")
    assert not check.is_far({"text": x[0] * (1 + 1e-6)}, [0])
    assert check.is_far({"text": 1e3 * (1 + x.abs().max()) * torch.arange(1.0, x.shape[1] + 1)}, [0])
