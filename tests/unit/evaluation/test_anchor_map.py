"""The map of the routing space: products of its vectors are the router's scores, and it repeats."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from data.benchmark import Task
from data.files import unseal
from data.folders import StudyFolders, anchor_file
from evaluation.anchor_map import _place, _together, anchor_map, write_anchor_map
from model.moe.anchor_files import save_anchor
from model.moe.anchors import Anchor
from model.moe.routing import Router
from model.moe.routing_records import RouterConfig, RoutingFeatures

TASKS = 3


def drawn(seed: int, count: int = 20) -> tuple[RoutingFeatures, list[int]]:
    """Text (4 wide) tells the tasks apart, sound (6 wide) hardly; the last sample has no sound."""
    generator = torch.Generator().manual_seed(seed)
    tasks = [task for task in range(TASKS) for _ in range(count)]
    text = torch.randn(len(tasks), 4, generator=generator)
    audio = torch.randn(len(tasks), 6, generator=generator)
    for row, task in enumerate(tasks):
        text[row, task] += 8
        audio[row, task] += 1
    present = {
        "text": torch.ones(len(tasks), dtype=torch.bool),
        "audio": torch.ones(len(tasks), dtype=torch.bool),
    }
    present["audio"][-1] = False
    return RoutingFeatures({"text": text, "audio": audio}, present), tasks


def rows_of(features: RoutingFeatures, tasks: list[int], task: int) -> dict[str, Tensor]:
    own = torch.tensor([found == task for found in tasks])
    return {name: value[own & features.present[name]] for name, value in features.values.items()}


@pytest.fixture
def anchors() -> list[Anchor]:
    features, tasks = drawn(0)
    kinds = {"text": "question"}
    return [
        Anchor.from_features(task, rows_of(features, tasks, task), base_identity="b", feature_kinds=kinds)
        for task in range(TASKS)
    ]


@pytest.mark.parametrize(
    "config", [RouterConfig(), RouterConfig(metric="raw", modality_weights="equal")], ids=["whitened", "raw"]
)
def test_products_are_the_scores(anchors: list[Anchor], config: RouterConfig) -> None:
    features, _ = drawn(1)
    router = Router(anchors, config)
    placed = {name: _place(router, features, name) for name in router.modalities}
    view = _together(placed, router.weights())
    complete = features.present["audio"].clone()
    if router.new_words is not None:
        complete &= ~router.new_words.among(features)  # compared in another space
        assert complete.sum() > 50
    wanted = router.route(features).scores[complete]
    torch.testing.assert_close((view.samples @ view.anchors.T)[complete], wanted)


def test_what_it_tells(anchors: list[Anchor]) -> None:
    features, tasks = drawn(1)
    found = anchor_map(Router(anchors, RouterConfig()), features, tasks)
    assert (found["router"], found["metric"], found["candidates"]) == ("cosine", "whitened", [0, 1, 2])
    assert found["tasks"] == tasks and found["weights"]["text"] > found["weights"]["audio"]
    assert sum(map(int.__eq__, found["chosen"], tasks)) >= 58
    assert list(found["views"]) == ["all", "text", "audio"]
    view = found["views"]["audio"]
    assert view["shown"] == 1.0  # three anchors lie in a plane
    assert view["samples"][-1] is None and len(view["samples"]) == 60 and len(view["anchors"]) == 3
    text = found["views"]["text"]
    for place, task in zip(text["samples"], tasks, strict=True):
        gaps = [(place[0] - x) ** 2 + (place[1] - y) ** 2 for x, y in text["anchors"]]
        assert gaps.index(min(gaps)) == task


def test_its_file_has_a_checksum(anchors: list[Anchor], tmp_path: Path) -> None:
    features, _ = drawn(1)
    folders, config = StudyFolders(tmp_path), RouterConfig()
    for anchor in anchors:
        save_anchor(anchor, anchor_file(folders.anchors("anchor_moe"), anchor.task_id))
    tasks = [Task(task, f"t{task}", None, None, None, f"task{task}") for task in range(TASKS)]
    inputs = SimpleNamespace(base_identity="b", routing=lambda samples: features)
    write_anchor_map(tmp_path, tasks, [range(20)] * TASKS, folders, inputs, config)
    found, sealed = unseal((tmp_path / "anchor_map.json").read_bytes())
    assert sealed and found == anchor_map(Router(anchors, config), features, found["tasks"])


def test_it_repeats_whatever_the_order_of_the_anchors(anchors: list[Anchor]) -> None:
    features, tasks = drawn(1)
    first, second = (
        anchor_map(Router(given, RouterConfig()), features, tasks) for given in (anchors, anchors[::-1])
    )
    assert first == second


def test_one_anchor_and_one_modality(anchors: list[Anchor]) -> None:
    features, tasks = drawn(1)
    found = anchor_map(Router(anchors[:1], RouterConfig(modalities=("text",))), features, tasks)
    assert list(found["views"]) == ["text"] and found["views"]["text"]["anchors"] == [[0.0, 0.0]]


def test_a_router_that_needs_more_is_not_asked(anchors: list[Anchor]) -> None:
    features, tasks = drawn(1)
    assert anchor_map(Router(anchors, RouterConfig("autonomy")), features, tasks)["chosen"] is None
    with pytest.raises(ValueError, match="2 task ids for 60 samples"):
        anchor_map(Router(anchors, RouterConfig()), features, [0, 1])
