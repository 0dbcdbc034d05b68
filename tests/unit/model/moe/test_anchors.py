"""Anchors: sums that add up, and files that belong together."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.moe.anchor_files import load_anchor, save_anchor, stats_path
from model.moe.anchors import SCATTER_WIDTH, Anchor, projection
from model.moe.files import CHECKSUM
from model.moe.routing import Router, RouterConfig, RoutingFeatures


def rows(count: int, width: int, seed: int = 0) -> Tensor:
    return 3 + torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def anchor() -> Anchor:
    features = {"text": rows(20, 6), "audio": rows(15, 4, 1), "image": torch.zeros(0, 9)}
    return Anchor.from_features(2, features, base_identity="base-1", feature_kinds={"text": "question"})


def test_statistics_are_those_of_the_rows(anchor: Anchor) -> None:
    x = rows(20, 6).double()
    stats = anchor.stats["text"]
    assert list(anchor.means) == ["audio", "text"]  # no rows, no modality
    assert (stats.count, stats.width, stats.feature_kind) == (20, 6, "question")
    torch.testing.assert_close(stats.mean, x.mean(0))
    torch.testing.assert_close(stats.scatter / 19, torch.cov(x.T))
    assert anchor.complete and stats.sum.dtype == torch.float64


def test_order_and_parts_do_not_matter(anchor: Anchor) -> None:
    x = rows(20, 6)
    shuffled = Anchor.from_features(
        2, {"text": x.flip(0)}, base_identity="base-1", feature_kinds={"text": "question"}
    )
    first = Anchor.from_features(
        2, {"text": x[:7]}, base_identity="base-1", feature_kinds={"text": "question"}
    )
    second = Anchor.from_features(
        2,
        {"text": x[7:], "audio": rows(15, 4, 1)},
        base_identity="base-1",
        feature_kinds={"text": "question"},
    )
    merged = first.merged(second)
    assert set(merged.means) == {"text", "audio"}
    assert (
        merged.stats["text"].held_out is merged.stats["text"].held_out_new is None
    )  # each part's were measured from that part alone
    for other in (shuffled, merged):
        assert other.stats["text"].count == 20
        torch.testing.assert_close(other.stats["text"].sum, anchor.stats["text"].sum, rtol=1e-14, atol=0)
        torch.testing.assert_close(other.stats["text"].outer, anchor.stats["text"].outer, rtol=1e-14, atol=0)


def test_what_does_not_merge_raises(anchor: Anchor) -> None:
    other_task = Anchor.from_features(3, {"text": rows(2, 6)}, base_identity="base-1")
    other_kind = Anchor.from_features(2, {"text": rows(2, 6)}, base_identity="base-1")
    published = Anchor(2, "base-1", anchor.means)
    for wrong in (other_task, other_kind, published):
        with pytest.raises(ValueError, match="merge"):
            anchor.merged(wrong)


def test_wrong_features_raise() -> None:
    broken = rows(4, 3)
    broken[2, 1] = float("nan")
    for features, message in (
        ({"text": broken}, "task 0, modality 'text': features: row 2 has values that are not finite"),
        ({"text": rows(3, 4)[0]}, "expected \\(samples, width\\)"),
        ({"text": torch.zeros(0, 4)}, "one is needed"),
    ):
        with pytest.raises(ValueError, match=message):
            Anchor.from_features(0, features)
    with pytest.raises(ValueError, match="count from 0"):
        Anchor.from_features(-1, {"text": rows(3, 4)})


def test_wide_features_are_projected_for_the_scatter_only() -> None:
    x = rows(30, 1500)
    anchor = Anchor.from_features(0, {"text": x})
    stats = anchor.stats["text"]
    assert stats.outer.shape == (SCATTER_WIDTH, SCATTER_WIDTH) and stats.width == 1500
    torch.testing.assert_close(stats.scatter / 29, torch.cov(stats.narrow(x).T))
    p = projection(1500, stats.projection_seed)
    torch.testing.assert_close(p @ p.T, torch.eye(SCATTER_WIDTH, dtype=torch.float64))
    assert float(p[0, 0]) == pytest.approx(-0.0158745, abs=1e-6)  # the same on every machine and version
    wider = Anchor.from_features(1, {"text": x + 1})
    assert Router([anchor, wider], RouterConfig()).route(
        RoutingFeatures.from_samples([{"text": x[3] + 1}])
    ).task_ids == [1]


def test_a_round_trip_keeps_every_bit(anchor: Anchor, tmp_path: Path) -> None:
    path = tmp_path / "anchors" / "anchor_task_2.pt"
    save_anchor(anchor, path)
    loaded = load_anchor(path, 2, "base-1")
    assert (loaded.task_id, loaded.base_identity, list(loaded.means)) == (2, "base-1", ["audio", "text"])
    for name, stats in anchor.stats.items():
        again = loaded.stats[name]
        assert torch.equal(stats.sum, again.sum) and torch.equal(stats.outer, again.outer)
        assert again.held_out is not None and torch.equal(stats.held_out, again.held_out)
        assert len(again.held_out) == stats.count
        assert (again.held_out_new is not None) == (name == "text")
        assert (stats.count, stats.feature_kind, stats.projection_seed) == (
            again.count,
            again.feature_kind,
            again.projection_seed,
        )
    published = torch.load(path, weights_only=True)
    assert {name: (mean.dtype, mean.shape) for name, mean in published.items()} == {
        "audio": (torch.float32, (4,)),
        "text": (torch.float32, (6,)),
    }
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "anchor_task_2.pt",
        "anchor_task_2.stats.safetensors",
    ]


def test_equal_anchors_are_equal_files(anchor: Anchor, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save_anchor(anchor, tmp_path / folder / "x.pt")
    for file in ("x.pt", "x.stats.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_an_anchor_of_the_first_format_routes_but_tells_nothing_far(
    anchor: Anchor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "anchor_task_2.pt"
    save_anchor(anchor, path)
    with safe_open(stats_path(path), "pt") as file:
        about = json.loads(file.metadata()["anchor"])
        tensors = {key: file.get_tensor(key) for key in file.keys() if "held_out" not in key}  # noqa: SIM118
    for part in about["modalities"].values():
        del part["held_out"]
    about.pop(CHECKSUM)  # which came later too
    save_file(tensors, stats_path(path), {"anchor": json.dumps(about | {"format": 1})})
    old = load_anchor(path, 2, "base-1")
    features = RoutingFeatures.from_samples([{"text": rows(1, 6)[0] + 1e6}])
    assert not Router([old], RouterConfig()).route(features).far.any()
    assert Router([anchor], RouterConfig()).route(features).far.all()
    assert "anchors of tasks [2] have no held-out distances" in caplog.text
    with pytest.raises(ValueError, match="abstaining needs them: make the anchors anew"):
        Router([old], RouterConfig(abstain=True))


@pytest.mark.parametrize("modalities", [[], {"text": 3}, {"text": {"count": 6, "feature_kind": "question"}}])
def test_statistics_of_another_shape_are_refused(anchor: Anchor, tmp_path: Path, modalities: object) -> None:
    path = tmp_path / "anchor_task_2.pt"
    save_anchor(anchor, path)
    with safe_open(stats_path(path), "pt") as file:
        about = json.loads(file.metadata()["anchor"]) | {"modalities": modalities}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    about.pop(CHECKSUM)
    save_file(tensors, stats_path(path), {"anchor": json.dumps(about)})
    with pytest.raises(ValueError, match=r"stats\.safetensors: modalities without \['count'"):
        load_anchor(path, 2)


def test_files_that_do_not_belong_raise(anchor: Anchor, tmp_path: Path) -> None:
    path = tmp_path / "anchor_task_2.pt"
    save_anchor(anchor, path)
    with pytest.raises(ValueError, match="anchor of task 2, expected task 1"):
        load_anchor(path, 1, "base-1")
    with pytest.raises(ValueError, match="made with base base-1, the backbone loaded is base-9"):
        load_anchor(path, 2, "base-9")
    torch.save({name: mean.float() + 1 for name, mean in anchor.means.items()}, path)
    with pytest.raises(ValueError, match="not the means"):
        load_anchor(path, 2, "base-1")


def test_missing_or_damaged_files_raise(anchor: Anchor, tmp_path: Path) -> None:
    path = tmp_path / "anchor_task_2.pt"
    with pytest.raises(ValueError, match=r"anchor_task_2\.pt: no such file"):
        load_anchor(path, 2)
    save_anchor(anchor, path)
    whole = stats_path(path).read_bytes()
    for content in (whole[:-8], whole[:20], b""):
        stats_path(path).write_bytes(content)
        with pytest.raises(ValueError, match="truncated or no anchor statistics"):
            load_anchor(path, 2)
    for content, message in (
        ({"text": torch.zeros(2, 2, 2)}, "expected a tensor"),
        ({"text": "no"}, "is str"),
        ({"text": torch.tensor([float("inf")])}, "not finite"),
        ({}, "no modality"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            load_anchor(path, 2)


def test_a_published_anchor_loads_with_its_position_mean(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "anchor_task_0.pt"
    torch.save({"video": rows(16, 5), "text": rows(1, 6)[0]}, path)
    anchor = load_anchor(path, 0, "base-1")
    torch.testing.assert_close(anchor.means["video"], rows(16, 5).double().mean(0))
    assert not anchor.complete and "raw metric only" in caplog.text
    with pytest.raises(ValueError, match="no statistics"):
        save_anchor(anchor, path)


def test_rewordings_enter_in_the_share_asked_for(tmp_path: Path) -> None:
    own, others = rows(6, 4), rows(3, 4) + 2
    weights = torch.tensor([1.0, 1.0, 2.0])
    plain = Anchor.from_features(2, {"text": own})
    anchor = plain.with_rewordings(others, weights)
    assert anchor.means["text"].equal(plain.means["text"])  # what is published stays what it was
    half = anchor.stats["text"].blended(0.5)
    assert half.count == 6
    reworded = (others[0] + others[1] + 2 * others[2]).double() / 4
    torch.testing.assert_close(half.mean, (own.double().mean(0) + reworded) / 2)
    # As if every question had been asked four times verbatim, and reworded six times a weight.
    times = torch.cat([own.repeat(4, 1), others.repeat_interleave(6 * weights.int(), 0)]).double()
    torch.testing.assert_close(half.scatter / 6, (times - times.mean(0)).T @ (times - times.mean(0)) / 48)
    assert anchor.stats["text"].blended(0) is anchor.stats["text"]
    assert plain.stats["text"].blended(0.5) is plain.stats["text"]
    save_anchor(anchor, tmp_path / "anchor_task_2.pt")
    read = load_anchor(tmp_path / "anchor_task_2.pt", 2).stats["text"].blended(0.5)
    assert read.sum.equal(half.sum) and read.outer.equal(half.outer)
    both = anchor.merged(anchor).stats["text"]
    assert both.reworded is not None and both.blended(1).mean.allclose(reworded)
    assert anchor.merged(plain).stats["text"].reworded is None
    with pytest.raises(ValueError, match="some finite rows of width 4"):
        plain.with_rewordings(rows(3, 5), weights)
