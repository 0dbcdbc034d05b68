"""Routing among thousands of anchors decides as the exact scores of all of them do."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.moe.anchors import Anchor
from model.moe.routing import Router, RouterConfig, Routing, RoutingFeatures
from model.moe.shortlist import LARGE, Shortlist

COUNT, WIDTHS = LARGE + 37, {"text": 24, "audio": 13}
RAW = RouterConfig(metric="raw", modality_weights="equal")


def drawn(rows: int, seed: int) -> dict[str, Tensor]:
    make = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, width, generator=make) for name, width in WIDTHS.items()}


@pytest.fixture(scope="module")
def bare() -> list[Anchor]:
    """Anchors without statistics; of tasks 100 and 900 the same."""
    means = {name: value.double() for name, value in drawn(COUNT, 0).items()}
    for value in means.values():
        value[900] = value[100]
    return [Anchor(task, None, {name: v[task] for name, v in means.items()}) for task in range(COUNT)]


@pytest.fixture(scope="module")
def complete() -> list[Anchor]:
    return [Anchor.from_features(task, drawn(3, 1000 + task)) for task in range(COUNT)]


def features(rows: int, seed: int = 1) -> RoutingFeatures:
    """Random samples; the second has no audio."""
    values = drawn(rows, seed)
    return RoutingFeatures.from_samples(
        [{"text": values["text"][r], "audio": values["audio"][r] if r != 1 else None} for r in range(rows)]
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many anchors were compared exactly, call by call."""
    calls: list[int] = []
    compare: Callable[..., tuple[Tensor, dict[str, Tensor]]] = Router._compare

    def counted(router: Router, features: RoutingFeatures, columns: Tensor | None = None) -> object:
        calls.append(COUNT if columns is None else len(columns))
        return compare(router, features, columns)

    monkeypatch.setattr(Router, "_compare", counted)
    return calls


def best(routing: Routing) -> list[int]:
    return [routing.candidates[int(column)] for column in routing.scores.argmax(1)]


def test_few_anchors_decide_as_all_do(bare: list[Anchor], asked: list[int]) -> None:
    router = Router(bare, RAW)
    for rows in (1, 2, 5):
        del asked[:]
        routing = router.route(features(rows, rows))
        assert len(asked) == 1 and asked[0] < COUNT // 4
        assert routing.task_ids == best(routing) and not routing.far.any()
        assert len(asked) == 2 and routing.scores.shape == (rows, COUNT)  # made when read, once
        assert set(routing.modality_scores) == set(WIDTHS) and len(asked) == 2


@pytest.mark.parametrize("config", [RouterConfig(), RouterConfig(modality_weights="equal")])
def test_whitened_scores_too(complete: list[Anchor], config: RouterConfig, asked: list[int]) -> None:
    routing = Router(complete, config).route(features(3))
    assert asked[0] < COUNT and routing.task_ids == best(routing)
    assert torch.equal(
        routing.far, torch.stack([Router(complete, config).route(one(r)).far[0] for r in range(3)])
    )


def one(row: int) -> RoutingFeatures:
    made = features(3)
    return RoutingFeatures(
        {m: v[row : row + 1] for m, v in made.values.items()},
        {m: p[row : row + 1] for m, p in made.present.items()},
    )


def test_ties_and_samples_without_direction_are_left_to_all(bare: list[Anchor], asked: list[int]) -> None:
    router = Router(bare, RAW)
    twin = {name: mean.float() for name, mean in bare[900].means.items()}
    assert router.route(RoutingFeatures.from_samples([twin])).task_ids == [100] and asked[-1] == COUNT
    zero = {name: torch.zeros(width) for name, width in WIDTHS.items()}
    assert router.route(RoutingFeatures.from_samples([zero])).task_ids == [0] and asked == [2, COUNT, COUNT]


def test_an_anchor_without_a_modality_needs_all(bare: list[Anchor], asked: list[int]) -> None:
    lacking = Anchor(0, None, {"text": bare[0].means["text"]})
    routing = Router([lacking, *bare[1:]], RAW).route(features(2))
    assert asked == [COUNT] and routing.task_ids == best(routing)


@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0])
def test_the_best_is_always_on_the_list(spread: float) -> None:
    """Also where anchors differ by less than 8 bits can tell, and with zero anchors."""
    make = torch.Generator().manual_seed(3)
    center = torch.randn(1, 100, generator=make).double()
    rows = center + spread * torch.randn(700, 100, generator=make).double()
    rows[5] = 0
    units = torch.nn.functional.normalize(rows, dim=1)
    shortlist = Shortlist({"text": units[:, :70], "audio": units[:, 70:] * 0 + 0.1})
    for _ in range(20):
        y = torch.randn(70, generator=make).double()
        scores = units[:, :70] @ (y / y.norm())
        near = shortlist.near({"text": y}, {"text": 2.0, "audio": 1.0})
        assert int(scores.argmax()) in near and near.tolist() == sorted(near.tolist())
        assert spread < 1 or len(near) < 100
