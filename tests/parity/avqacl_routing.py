"""Published anchors and experts load, the published rule selects what was recorded, and the whole path from
a sample to its answer goes as recorded.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data.feature_store import FeatureStore
from data.inputs import Inputs
from evaluation.anchor_moe import AnchorMoE
from evaluation.answer_book import AnswerBook
from evaluation.answering import Generation
from model.language_model.backbone import Backbone
from model.moe.anchor_files import load_anchor
from model.moe.anchors import Anchor
from model.moe.expert_files import inspect_expert
from model.moe.routing import MODALITIES, Router, RouterConfig, RoutingFeatures, parse_modality_combination
from tests.parity.avqacl_language import sure_steps
from tests.parity.recorded import SIMILARITIES, Notes, Recorded, RecordedSet

PUBLISHED = {"metric": "raw", "modality_weights": "equal"}
EVALUATION = "eval_text_"  # files of the whole evaluation, one a modality combination


def published(combination: str) -> RouterConfig:
    return RouterConfig(modalities=parse_modality_combination(combination), **PUBLISHED)


def load_anchors(recorded: RecordedSet) -> list[Anchor]:
    return [load_anchor(path, task) for task, path in recorded.inputs("anchors").items()]


def position_means(features: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value if value.ndim == 1 else value.mean(0) for name, value in features.items()}


def combinations(selection: Recorded) -> dict[str, Any]:
    """Modality combination -> what was selected."""
    return {key: selection[key] for key in selection if key != "modalities"}


def test_selection_as_recorded(case: Any, recorded: RecordedSet, notes: Notes) -> None:
    """From our own features, for every combination of modalities."""
    features = position_means(case.routing)
    batch = RoutingFeatures.from_samples([features])
    selection = recorded.file("selection.json")[case.name]
    assert sorted(selection["modalities"]) == sorted(features)
    assert combinations(selection)
    anchors = load_anchors(recorded)
    for combination, expected in combinations(selection).items():
        routing = Router(anchors, published(combination)).route(batch)
        assert routing.candidates.index(routing.task_ids[0]) == expected["selected"], combination
        close_or_absent(routing.scores[0], expected["similarities"], notes)
        assert set(expected["per_modality"]) == set(MODALITIES)
        for modality in MODALITIES:
            theirs = expected["per_modality"][modality]
            got = routing.modality_scores.get(modality, torch.full((1, len(theirs)), math.nan))
            close_or_absent(got[0], theirs, notes)


def close_or_absent(got: Tensor, recorded: list[float], notes: Notes) -> None:
    """As recorded; what we call absent (NaN) was recorded as 0."""
    theirs = torch.tensor(recorded, dtype=torch.float64)
    absent = got.isnan()
    assert not theirs[absent].any()
    notes.close(got.double().nan_to_num(0.0), theirs, SIMILARITIES)


def test_all_samples_in_one_batch_select_the_same(recorded: RecordedSet, cases: dict[str, Any]) -> None:
    selections = recorded.file("selection.json")
    assert set(selections) == set(cases)
    samples = [position_means(case.routing) for case in cases.values()]
    routing = Router(load_anchors(recorded), published("all")).route(RoutingFeatures.from_samples(samples))
    selected = [routing.candidates.index(task) for task in routing.task_ids]
    assert selected == [selections[name]["all"]["selected"] for name in cases]


def test_published_anchors_fall_back_to_the_raw_metric(
    recorded: RecordedSet, caplog: pytest.LogCaptureFixture
) -> None:
    anchors = load_anchors(recorded)
    router = Router(anchors, RouterConfig())
    assert router.raw and "no statistics" in caplog.text
    with pytest.raises(ValueError, match="make them anew"):
        Router(anchors, RouterConfig("lda"))


def test_published_experts_are_recognised(recorded: RecordedSet) -> None:
    for path in recorded.inputs("experts").values():
        found = inspect_expert(path)
        assert found.header.kind == "mlp" and found.header.base_identity is None
        assert found.layers and all(layer % 2 == 0 for layer in found.layers)
        assert set(found.projections) == {"gate_proj", "up_proj", "down_proj"}


def test_whole_evaluation(
    recorded: RecordedSet,
    cases: dict[str, Any],
    make_backbone: Callable[[], Backbone],
    tmp_path: Path,
) -> None:
    """Samples in, answers out, by the object behind the evaluation command, with the published settings.

    The texts pass many near ties, so they are compared up to the first of them; up to there they are what
    the selected expert generates.
    """
    files = recorded.names(f"{EVALUATION}*.json")
    for file in files:
        combination = Path(file).stem.removeprefix(EVALUATION)
        expected = recorded.file(file)
        asked = {name: case for name, case in cases.items() if case.sample.id in expected}
        assert {case.sample.id for case in asked.values()} == set(expected)
        samples = [case.sample for case in asked.values()]
        steps = max(
            len(entry["margins"])
            for name in asked
            for entry in recorded.file("generation.json")[name].values()
        )
        moe = evaluation(recorded, make_backbone(), published(combination), steps, samples, tmp_path)
        compared = 0
        tokenizer = moe.inputs.tokenizer
        for (name, case), answer in zip(asked.items(), moe.predict(samples), strict=True):
            selected = recorded.file("selection.json")[name][combination]["selected"]
            assert answer.task_id == moe.router.candidates[selected], name
            generation = recorded.file("generation.json")[name][f"expert{answer.task_id}"]
            sure = generation["ids"][: sure_steps(generation)]
            # The last bytes may be the beginning of a character.
            beginning = tokenizer.decode(sure).strip().rstrip("\ufffd")
            assert answer.text.startswith(beginning), name
            assert expected[case.sample.id].strip().startswith(beginning), name
            compared += len(beginning)
        assert compared, file


def evaluation(
    recorded: RecordedSet,
    backbone: Backbone,
    router: RouterConfig,
    steps: int,
    samples: list[Any],
    store: Path,
) -> AnchorMoE:
    """The evaluation as published: all frames, the prompt as text feature, the published routing rule."""
    frames = max(len(medium.paths) for sample in samples for medium in sample.media)
    features = FeatureStore(store / "features", backbone.encoder, num_frames=frames)
    return AnchorMoE.assemble(
        Inputs(backbone, features, text_feature="prompt", quiet=True),
        backbone,
        recorded.folder / "experts",
        recorded.folder / "anchors",
        router,
        AnswerBook(store / "answers.jsonl"),
        Generation(max_new_tokens=steps, progress=False),
    )
