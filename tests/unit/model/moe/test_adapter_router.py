"""The router in front of a server: names for samples, from files alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model.moe.adapter_router import ANCHORS, FILE, AdapterRouter, Deployment
from model.moe.anchor_files import save_anchor
from model.moe.anchors import Anchor
from model.moe.routing import Router, RouterConfig, RoutingFeatures

MADE = Deployment(
    adapters={0: "task_0_come", 3: "task_3_which"},
    router=RouterConfig(abstain=True),
    text_feature="question",
    num_frames=8,
    base_identity="base-1",
    front_end="f",
    vision="v",
    audio="a",
)


def rows(task: int, count: int, seed: int = 0) -> torch.Tensor:
    """Samples of a task around a mean of its own. (count, 4)"""
    center = torch.zeros(4)
    center[task] = 5.0
    return center + torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for task in MADE.adapters:
        anchor = Anchor.from_features(
            task,
            {"text": rows(task, 40, task)},
            base_identity="base-1",
            feature_kinds={"text": "question"},
        )
        save_anchor(anchor, tmp_path / ANCHORS / f"anchor_task_{task}.safetensors")
    MADE.save(tmp_path)
    return tmp_path


def features(*samples: torch.Tensor) -> RoutingFeatures:
    return RoutingFeatures.from_samples([{"text": sample} for sample in samples], {"text": "question"})


def test_samples_go_where_the_router_sends_them(folder: Path) -> None:
    router = AdapterRouter.load(folder)
    assert router.deployment == MADE
    asked = features(rows(3, 1, 7)[0], rows(0, 1, 8)[0], torch.full((4,), -40.0))
    chosen = router.choose(asked)
    assert [choice.adapter for choice in chosen] == ["task_3_which", "task_0_come", None]  # far: bare LLM
    scores = Router(router.router.anchors, MADE.router).route(asked).scores
    assert [list(choice.scores.values()) for choice in chosen] == scores.tolist()
    assert list(chosen[0].scores) == ["task_0_come", "task_3_which"]


def test_features_of_another_kind_are_refused(folder: Path) -> None:
    router = AdapterRouter.load(folder)
    asked = RoutingFeatures.from_samples([{"text": torch.zeros(4)}], {"text": "prompt"})
    with pytest.raises(ValueError, match="features of kind 'prompt'"):
        router.choose(asked)
    with pytest.raises(ValueError, match="features of width 3"):
        router.choose(features(torch.zeros(3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "expected format 1"),
        ({"new": 1}, "expected format 1"),
        ({"router": {"metric": "raw"}}, "unreadable"),
        ({"router": {"modalities": ["text"], "speed": 1}}, "unreadable"),
        ({"router": {"modalities": ["text"], "metric": "warped"}}, "unreadable .*warped"),
        ({"adapters": {"x": "a"}}, "unreadable"),
        ({"adapters": {"0": "a", "1": "a"}}, "a name of its own"),
        ({"adapters": {}}, "a name of its own"),
        ({"adapters": {"0": "a", "1": "b"}}, "anchor_task_1.safetensors: no such file"),
        ({"base_identity": "base-2"}, "made with base base-1"),
    ],
)
def test_a_damaged_folder_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    content = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**content, **changes}))
    with pytest.raises(ValueError, match=message):
        AdapterRouter.load(folder)


def test_a_folder_without_its_file_is_named(folder: Path) -> None:
    (folder / FILE).write_text("{")
    with pytest.raises(ValueError, match=r"routing\.json: not valid JSON"):
        AdapterRouter.load(folder)
    (folder / FILE).unlink()
    with pytest.raises(ValueError, match=r"routing\.json: no such file; make the folder with"):
        AdapterRouter.load(folder)


def test_what_features_cannot_decide_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="'oracle' needs more than features"):
        replace(MADE, router=RouterConfig("oracle"))
    with pytest.raises(ValueError, match=r"anchors of tasks \[0\] for adapters of tasks \[0, 3\]"):
        AdapterRouter(MADE, AdapterRouter.load(folder).router.anchors[:1])
