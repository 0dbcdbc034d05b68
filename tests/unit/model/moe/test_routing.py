"""Routing by anchors, and the routers for reports."""

import logging

import pytest
import torch
from torch import Tensor

from model.moe.anchors import Anchor
from model.moe.routing import Router, RouterConfig, Routing, RoutingFeatures, parse_modality_combination

TASKS = (0, 2, 5)
COMPARING = [
    RouterConfig(),
    RouterConfig(metric="raw", modality_weights="equal"),
    RouterConfig(metric="raw"),
    RouterConfig("lda"),
]


def task_rows(task: int, width: int, count: int = 60, apart: float = 4.0) -> Tensor:
    """Rows around a center of the task's own. (count, width)"""
    center = torch.randn(width, generator=torch.Generator().manual_seed(100 + task + width))
    return apart * center + torch.randn(count, width, generator=torch.Generator().manual_seed(task))


def anchor_of(task: int, **features: Tensor) -> Anchor:
    return Anchor.from_features(task, features, base_identity="b", feature_kinds={"text": "question"})


@pytest.fixture
def anchors() -> list[Anchor]:
    """Text tells the tasks apart, audio does not; task 5 has no audio."""
    made = [anchor_of(t, text=task_rows(t, 8), audio=task_rows(t, 6, apart=0.0)) for t in TASKS[:2]]
    return [*made, anchor_of(5, text=task_rows(5, 8))]


@pytest.fixture
def features() -> RoutingFeatures:
    """Five samples of each task; the last one lacks text, the one before audio."""
    samples = [{"text": x, "audio": torch.randn(6)} for task in TASKS for x in task_rows(task, 8)[:5]]
    samples[-1] = {"text": None, "audio": torch.ones(6)}
    samples[-2] = {"text": samples[-2]["text"], "audio": None}
    return RoutingFeatures.from_samples(samples)


def assert_same(a: Routing, b: Routing) -> None:
    """Equal to the bit; NaN equals NaN."""
    assert a.task_ids == b.task_ids and a.candidates == b.candidates and torch.equal(a.far, b.far)
    for x, y in [
        (a.scores, b.scores),
        *((a.modality_scores[m], b.modality_scores[m]) for m in a.modality_scores),
    ]:
        assert torch.equal(x.nan_to_num(-9), y.nan_to_num(-9))


@pytest.mark.parametrize("config", [COMPARING[0], *COMPARING[2:]])  # the published rule trips over the audio
def test_samples_go_to_their_task(
    anchors: list[Anchor], features: RoutingFeatures, config: RouterConfig
) -> None:
    routing = Router(anchors, config).route(features)
    assert routing.candidates == TASKS
    assert routing.task_ids[:-1] == [task for task in TASKS for _ in range(5)][:-1]
    assert routing.missing == {"text": 1, "audio": 1}
    assert routing.modality_scores["audio"][:, 2].isnan().all()  # task 5 has no audio
    assert (
        routing.modality_scores["audio"][-2].isnan().all()
        and routing.modality_scores["text"][-1].isnan().all()
    )
    assert routing.scores[-1].isnan().tolist() == [False, False, True]  # nothing in common with task 5


@pytest.mark.parametrize("config", COMPARING)
def test_a_score_does_not_depend_on_the_batch(
    anchors: list[Anchor], features: RoutingFeatures, config: RouterConfig
) -> None:
    router = Router(anchors, config)
    whole = router.route(features)
    for size in (1, 4, 7):
        parts = []
        for start in range(0, len(features), size):
            rows = slice(start, start + size)
            part = RoutingFeatures(
                {m: v[rows] for m, v in features.values.items()},
                {m: p[rows] for m, p in features.present.items()},
            )
            parts.append(router.route(part))
        scores = torch.cat([part.scores for part in parts])
        of_one = {m: torch.cat([part.modality_scores[m] for part in parts]) for m in whole.modality_scores}
        joined = Routing(
            [task for part in parts for task in part.task_ids],
            whole.candidates,
            lambda found=(scores, of_one): found,  # type: ignore[misc]
            torch.cat([part.far for part in parts]),
            {},
        )
        assert_same(joined, whole)


def test_published_cosine_is_the_plain_mean_of_cosines(
    anchors: list[Anchor], features: RoutingFeatures
) -> None:
    routing = Router(anchors, RouterConfig(metric="raw", modality_weights="equal")).route(features)
    for column, anchor in enumerate(sorted(anchors, key=lambda a: a.task_id)):
        parts = [
            torch.cosine_similarity(features.values[m][0].double(), mean, dim=0)
            for m, mean in anchor.means.items()
        ]
        torch.testing.assert_close(routing.scores[0, column], torch.stack(parts).mean())


def test_whitened_cosine_is_the_weighted_mean_of_modalities(
    anchors: list[Anchor], features: RoutingFeatures
) -> None:
    router = Router(anchors, RouterConfig())
    weights, routing = router.weights(), router.route(features)
    assert weights["text"] > 100 * weights["audio"]
    text, audio = routing.modality_scores["text"][0, 0], routing.modality_scores["audio"][0, 0]
    expected = (weights["text"] * text + weights["audio"] * audio) / (weights["text"] + weights["audio"])
    torch.testing.assert_close(routing.scores[0, 0], expected)


def test_noise_modalities_hurt_only_with_equal_weights() -> None:
    """Three modalities of which one is informative, weakly: the case that the weights are for."""
    tasks, count = range(4), 200
    train = [{m: task_rows(t, w, count, a) for m, w, a in MIX} for t in tasks]
    anchors = [anchor_of(t, **features) for t, features in zip(tasks, train, strict=True)]
    fresh = torch.Generator().manual_seed(77)
    right = dict.fromkeys(("informative", "equal"), 0)
    for task in tasks:
        center = {m: task_rows(task, w, 2000, a).mean(0) for m, w, a in MIX}
        samples = [{m: center[m] + torch.randn(w, generator=fresh) for m, w, a in MIX} for _ in range(50)]
        for weights in right:
            routing = Router(anchors, RouterConfig(modality_weights=weights)).route(
                RoutingFeatures.from_samples(samples)
            )
            right[weights] += sum(chosen == task for chosen in routing.task_ids)
    assert right["informative"] > 190 > 180 > right["equal"]


MIX = (("text", 16, 1.0), ("video", 64, 0.0), ("audio", 48, 0.0))


@pytest.mark.parametrize("config", COMPARING)
def test_one_task_takes_everything(
    anchors: list[Anchor], features: RoutingFeatures, config: RouterConfig
) -> None:
    assert set(Router(anchors[1:2], config).route(features).task_ids) == {2}


@pytest.mark.parametrize("config", COMPARING)
def test_ties_go_to_the_lowest_task(config: RouterConfig) -> None:
    twins = [anchor_of(task, text=task_rows(0, 8)) for task in (7, 3, 4)]
    routing = Router(twins, config).route(
        RoutingFeatures.from_samples([{"text": x} for x in task_rows(0, 8)[:4]])
    )
    assert routing.task_ids == [3] * 4 and routing.candidates == (3, 4, 7)


def test_nothing_in_common_goes_to_the_lowest_task_and_is_far(anchors: list[Anchor]) -> None:
    features = RoutingFeatures.from_samples([{"video": torch.ones(3)}, {"text": task_rows(2, 8)[0]}])
    routing = Router(anchors, RouterConfig()).route(features)
    assert routing.task_ids == [0, 2] and routing.far.tolist() == [True, False]
    assert routing.scores[0].isnan().all()


def test_far_samples_are_flagged_and_abstain(anchors: list[Anchor]) -> None:
    samples = [{"text": task_rows(2, 8)[1]}, {"text": task_rows(2, 8)[1] + 30}]
    features = RoutingFeatures.from_samples(samples)
    for config in (RouterConfig(), RouterConfig("lda"), RouterConfig(metric="raw")):
        assert Router(anchors, config).route(features).far.tolist() == [False, True]
    assert Router(anchors, RouterConfig(abstain=True)).route(features).task_ids == [2, -1]


def test_uninformative_modalities_alone_count_equally(anchors: list[Anchor]) -> None:
    """Audio has no weight beside text, but a sample without text is still compared by it."""
    same = [anchor_of(t, text=task_rows(t, 8), audio=task_rows(0, 6)) for t in TASKS]
    router = Router(same, RouterConfig())
    assert router.weights()["audio"] == 0 < router.weights()["text"]
    routing = router.route(RoutingFeatures.from_samples([{"audio": torch.ones(6)}]))
    assert torch.isfinite(routing.scores).all() and routing.task_ids == [0]


def test_anchors_without_statistics_use_the_raw_metric(
    anchors: list[Anchor], features: RoutingFeatures, caplog: pytest.LogCaptureFixture
) -> None:
    published = [Anchor(a.task_id, None, a.means) for a in anchors]
    routing = Router(published, RouterConfig()).route(features)
    assert "raw metric" in caplog.text
    raw = Router(anchors, RouterConfig(metric="raw", modality_weights="equal")).route(features)
    assert torch.equal(routing.scores.nan_to_num(-9), raw.scores.nan_to_num(-9))
    assert routing.far.tolist() == [False] * 15
    for config in (RouterConfig("lda"), RouterConfig(abstain=True)):
        with pytest.raises(ValueError, match=r"\[0, 2, 5\] have no statistics"):
            Router(published, config)


def test_missing_modalities_are_reported(anchors: list[Anchor], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Router(anchors, RouterConfig())
    assert "anchor of task 5 has no audio" in caplog.text
    with pytest.raises(ValueError, match="no anchor has any of the modalities video"):
        Router(anchors, RouterConfig(modalities=("video",)))


def test_anchors_that_do_not_fit_together_raise(anchors: list[Anchor]) -> None:
    x = task_rows(1, 8)
    other_kind = Anchor.from_features(1, {"text": x}, base_identity="b", feature_kinds={"text": "prompt"})
    for wrong, message in (
        ([], "at least one"),
        ([anchors[0], anchors[0]], "one for each task"),
        ([*anchors, anchor_of(1, text=x[:, :5])], "widths differ"),
        ([*anchors, other_kind], "modality 'text': feature_kind"),
        ([*anchors, Anchor.from_features(1, {"text": x}, base_identity="other")], "2 different bases"),
    ):
        with pytest.raises(ValueError, match=message):
            Router(wrong, RouterConfig())


def test_features_that_do_not_fit_raise(anchors: list[Anchor]) -> None:
    router = Router(anchors, RouterConfig())
    with pytest.raises(ValueError, match="features of width 9, anchors of width 8"):
        router.route(RoutingFeatures.from_samples([{"text": torch.ones(9)}]))
    with pytest.raises(ValueError, match="kind 'prompt', anchors of kind 'question'"):
        router.route(RoutingFeatures.from_samples([{"text": torch.ones(8)}], {"text": "prompt"}))
    with pytest.raises(ValueError, match=r"widths \[3, 4\]"):
        RoutingFeatures.from_samples([{"text": torch.ones(3)}, {"text": torch.ones(4)}])
    with pytest.raises(ValueError, match="do not match"):
        RoutingFeatures({"text": torch.ones(2, 3)}, {"text": torch.ones(3, dtype=torch.bool)})


def test_oracle_follows_the_labels(anchors: list[Anchor], features: RoutingFeatures) -> None:
    router = Router(anchors, RouterConfig("oracle"))
    labels = [5, 0, 2] * 5
    assert router.route(features, labels=labels).task_ids == labels
    for wrong in (None, [0], [1] * 15):
        with pytest.raises(ValueError, match="oracle routing needs 15 labels"):
            router.route(features, labels=wrong)


def test_lookup_knows_exact_texts(anchors: list[Anchor]) -> None:
    features = RoutingFeatures.from_samples([{"text": torch.ones(8)}] * 3)
    router = Router(anchors, RouterConfig("lookup"), {"where": {2: 3, 5: 4}, "what": {5: 1, 0: 1}})
    routing = router.route(features, texts=["where", "what", "new"])
    assert routing.task_ids == [5, 0, 0] and routing.far.tolist() == [False, False, True]
    with pytest.raises(ValueError, match="needs known_texts and 3 texts"):
        router.route(features, texts=["where"])


def test_autonomy_takes_the_strongest_expert(anchors: list[Anchor]) -> None:
    features = RoutingFeatures.from_samples([{"text": torch.ones(8)}] * 2)
    router = Router(anchors, RouterConfig("autonomy"))
    assert router.route(features, norms=torch.tensor([[1.0, 3.0, 2.0], [2.0, 1.0, 2.0]])).task_ids == [2, 0]
    with pytest.raises(ValueError, match=r"norms of shape \(2, 3\)"):
        router.route(features, norms=torch.ones(2, 2))


def test_random_depends_on_content_and_seed_only(anchors: list[Anchor], features: RoutingFeatures) -> None:
    router = Router(anchors, RouterConfig("random"))
    chosen = router.route(features).task_ids
    flipped = RoutingFeatures(
        {m: v.flip(0) for m, v in features.values.items()},
        {m: p.flip(0) for m, p in features.present.items()},
    )
    assert router.route(flipped).task_ids == chosen[::-1]
    assert set(chosen) == set(TASKS)
    assert Router(anchors, RouterConfig("random", seed=1)).route(features).task_ids != chosen


def test_modality_combinations() -> None:
    assert parse_modality_combination("all") == ("text", "video", "image", "audio")
    for text in ("text_audio", "video_audio", "text_video", "text", "audio", "video"):
        assert set(parse_modality_combination(text)) == set(text.split("_"))
    assert parse_modality_combination("audio_text") == ("text", "audio")
    for wrong in ("", "smell", "text_text", "text-audio"):
        with pytest.raises(ValueError, match="modality combination"):
            parse_modality_combination(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"router": "gate"},
        {"metric": "l2"},
        {"modality_weights": "learned"},
        {"modalities": ()},
        {"modalities": ("smell",)},
        {"shrinkage": 0.0},
        {"far_level": 1.0},
    ],
)
def test_a_wrong_configuration_raises(wrong: dict) -> None:
    with pytest.raises(ValueError):
        RouterConfig(**wrong)
