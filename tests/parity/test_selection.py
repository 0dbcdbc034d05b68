"""Published anchors and experts load, and the published rule selects what was recorded."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from model.moe.anchor_files import load_anchor
from model.moe.anchors import Anchor
from model.moe.expert_files import inspect_expert
from model.moe.routing import MODALITIES, Router, RouterConfig, RoutingFeatures, parse_modality_combination

PUBLISHED = {"metric": "raw", "modality_weights": "equal"}


@pytest.fixture(scope="module")
def anchors(folder: Path) -> list[Anchor]:
    paths = sorted((folder / "anchors").glob("anchor_task_*.pt"))
    assert paths, f"no anchors in {folder}"
    return [load_anchor(path, int(path.stem.rpartition("_")[2])) for path in paths]


def recorded_features(path: Path) -> dict[str, Tensor]:
    """Routing features of one sample, (W,) per modality that it has."""
    features = {}
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118
            if key.startswith("anchor_eval_"):
                value = file.get_tensor(key)
                features[key.split("_")[2]] = value if value.ndim == 1 else value.mean(0)
    return features


def recorded_selections(folder: Path) -> dict[str, dict]:
    """Sample -> modality combination -> what was selected; groups may be lists or single entries."""
    content = json.loads((folder / "expected" / "selection.json").read_text())
    selections = {}
    for key, entry in content.items():
        if isinstance(entry, list):
            assert len(entry) == 1, f"{key}: {len(entry)} entries"
            entry = entry[0]
        selections[key] = {c: value for c, value in entry.items() if isinstance(value, dict)}
    return selections


def test_selection_as_recorded(folder: Path, anchors: list[Anchor], name: str) -> None:
    features = recorded_features(folder / "expected" / f"{name}.safetensors")
    batch = RoutingFeatures.from_samples([features])
    combinations = recorded_selections(folder)[name]
    assert combinations
    for combination, expected in combinations.items():
        config = RouterConfig(modalities=parse_modality_combination(combination), **PUBLISHED)
        routing = Router(anchors, config).route(batch)
        selected = routing.candidates.index(routing.task_ids[0])
        assert selected == expected["selected"], f"{name} {combination}: {routing.scores.tolist()}"
        close_or_absent(routing.scores[0], expected["similarities"])
        for modality in MODALITIES:
            recorded = expected["per_modality"][modality]
            got = routing.modality_scores.get(modality, torch.full((1, len(recorded)), math.nan))
            close_or_absent(got[0], recorded)


def close_or_absent(got: Tensor, recorded: list[float]) -> None:
    """Within 1e-5; what we call absent (NaN) was recorded as 0."""
    for ours, theirs in zip(got.tolist(), recorded, strict=True):
        assert theirs == 0.0 if math.isnan(ours) else abs(ours - theirs) < 1e-5


def test_all_samples_in_one_batch_select_the_same(folder: Path, anchors: list[Anchor]) -> None:
    selections = recorded_selections(folder)
    samples = [recorded_features(folder / "expected" / f"{key}.safetensors") for key in selections]
    config = RouterConfig(modalities=parse_modality_combination("all"), **PUBLISHED)
    routing = Router(anchors, config).route(RoutingFeatures.from_samples(samples))
    assert [routing.candidates.index(t) for t in routing.task_ids] == [
        s["all"]["selected"] for s in selections.values()
    ]


def test_published_anchors_fall_back_to_the_raw_metric(
    anchors: list[Anchor], caplog: pytest.LogCaptureFixture
) -> None:
    router = Router(anchors, RouterConfig())
    assert router.raw and "no statistics" in caplog.text
    with pytest.raises(ValueError, match="make them anew"):
        Router(anchors, RouterConfig("lda"))


def test_published_experts_are_recognised(folder: Path) -> None:
    for path in sorted((folder / "experts").glob("expert_task_*.pt")):
        found = inspect_expert(path)
        assert found.header.kind == "mlp" and found.header.base_identity is None
        assert found.layers and all(layer % 2 == 0 for layer in found.layers)
        assert set(found.projections) == {"gate_proj", "up_proj", "down_proj"}
