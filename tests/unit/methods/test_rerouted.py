"""Rows that choose among the experts of anchor_moe by another rule: the same files, each by its own rule, and
every answer once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from data.benchmark import Task
from data.folders import StudyFolders
from data.samples import Sample
from evaluation.answering import Answerer
from evaluation.study import Experts, Planner, StagePlan
from methods.anchor_moe import AnchorMoE
from methods.anchor_moe_autonomy import Autonomy
from methods.anchor_moe_lda import LDA
from methods.anchor_moe_published import Published
from methods.base import Rerouted
from model.language_model.anchor_lm import AnchorLM
from model.moe.anchor_files import save_anchor
from model.moe.anchors import Anchor
from model.moe.expert_sites import ExpertConfig
from model.moe.routing import Router
from model.moe.routing_records import RouterConfig, RoutingFeatures
from tests.unit.train.small_training import CONFIG, StubInputs, small_model

ROWS = (Published(), LDA(), Autonomy())
TASKS = [Task(task, f"t{task}", None, None, None, f"task{task}") for task in (4, 1)]
WIDTH = 6
ASKED = RouterConfig(modalities=("text", "audio"), new_level=0.0)


def text_of(sample: Any) -> Tensor:
    """Tasks differ in a direction of little spread, beside one of large spread that says nothing."""
    row = torch.randn(WIDTH, generator=torch.Generator().manual_seed(sample.index)) * 0.1
    row[0] *= 60
    row[1] += sample.task
    return row


class Inputs(StubInputs):
    """Prompts as in small trainings, texts as above."""

    base_identity = "b"

    def routing(self, samples: Sequence[Any], *, without_media: bool = False) -> RoutingFeatures:
        return RoutingFeatures.from_samples([{"text": text_of(sample)} for sample in samples])


def samples_of(task: int, first: int, count: int) -> list[Any]:
    numbers = range(first + 100 * task, first + 100 * task + count)
    return [SimpleNamespace(index=n, task=task, length=6 + n % 3) for n in numbers]


TESTS: list[Sequence[Sample]] = [samples_of(task.id, 50, 9) for task in TASKS]


def make_planner(folder: Path, model: AnchorLM, asked: RouterConfig = ASKED) -> Planner:
    """A study whose anchors are there; of the experts the bank is there, in which others come first."""
    folders, inputs = StudyFolders(folder), Inputs()
    for task in TASKS:
        path = folders.anchors("anchor_moe") / f"anchor_task_{task.id}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        learned = inputs.routing(samples_of(task.id, 0, 40))
        save_anchor(Anchor.from_features(task.id, learned.rows(), base_identity="b"), path)
    files = AnchorMoE().expert_files(TASKS, folders)
    experts = Experts({Path("other.pt"): 0, files[0]: 1, files[1]: 2})
    generation = SimpleNamespace(batch_size=4)
    answerer = Answerer(model, inputs, None, generation, {})  # type: ignore[arg-type]
    return Planner(TASKS, TESTS, folders, inputs, experts, asked, answerer)  # type: ignore[arg-type]


@pytest.fixture
def model() -> AnchorLM:
    made = small_model()
    assert made.bank is not None
    for number in range(3):
        made.bank.add(number, generator=torch.Generator().manual_seed(number))
    return made


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_files_are_those_of_anchor_moe(row: Rerouted, tmp_path: Path) -> None:
    for folders in (StudyFolders(tmp_path), StudyFolders(tmp_path, seed=2)):
        ours = AnchorMoE()
        assert row.expert_files(TASKS, folders) == ours.expert_files(TASKS, folders)
        assert row.anchor_files(TASKS, folders) == ours.anchor_files(TASKS, folders)
    assert not row.trains and row.make == AnchorMoE.make


def test_the_rule_is_the_rows_own_and_the_rest_the_flags() -> None:
    asked = RouterConfig("lda", "raw", "equal", ("text",), abstain=True, far_level=0.3, wordings="known")
    rest = {"modalities": ("text",), "abstain": True, "far_level": 0.3, "wordings": "known"}
    for made in (row.router(asked) for row in ROWS):
        assert {name: getattr(made, name) for name in rest} == rest
    published = Published().router(RouterConfig("autonomy"))
    assert (published.router, published.metric, published.modality_weights) == ("cosine", "raw", "equal")
    assert LDA().router(RouterConfig()).router == "lda"
    assert Autonomy().router(RouterConfig()).router == "autonomy"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_stages_are_routed_by_the_rule(row: Rerouted, tmp_path: Path, model: AnchorLM) -> None:
    planner = make_planner(tmp_path, model)
    plans = row.stages(planner)
    assert [(plan.stage, plan.task) for plan in plans] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for plan in plans:
        expected = by_hand(planner, row, plan)
        assert plan.routing is not None and plan.routing.task_ids == expected
        own = {4: 1, 1: 2}  # ids in the bank
        assert [request.expert for request in plan.requests] == [own[task] for task in expected]


def by_hand(planner: Planner, row: Rerouted, plan: StagePlan) -> list[int]:
    """The tasks that a row chooses: by the norms of the known tasks' experts, one prompt at a time, or by a
    router of the rule."""
    known = TASKS[: plan.stage + 1]
    if isinstance(row, Autonomy):
        model, chosen = planner.answerer.model, []
        for sample in TESTS[plan.task]:
            norms = model.activation_norms(planner.inputs.batch([sample], with_answers=False))[0].tolist()
            by_task = {4: norms[1], 1: norms[2]}
            chosen.append(max((task.id for task in known), key=by_task.__getitem__))
        return chosen
    inputs: Any = planner.inputs
    learned = [(task.id, inputs.routing(samples_of(task.id, 0, 40))) for task in known]
    anchors = [Anchor.from_features(task, rows.rows(), base_identity="b") for task, rows in learned]
    config = RouterConfig("lda") if isinstance(row, LDA) else RouterConfig("cosine", "raw", "equal")
    return Router(anchors, config).route(inputs.routing(TESTS[plan.task])).task_ids


def test_rules_differ_where_spread_says_nothing(tmp_path: Path, model: AnchorLM) -> None:
    planner = make_planner(tmp_path, model)
    right = {row.name: share_right(row.stages(planner)) for row in (AnchorMoE(), *ROWS)}
    assert right["anchor_moe"] == right["anchor_moe_lda"] == 1.0
    assert right["anchor_moe_published"] < 0.9


def share_right(plans: Sequence[StagePlan]) -> float:
    last = [plan for plan in plans if plan.stage == len(TASKS) - 1 and plan.routing is not None]
    found = [t == TASKS[p.task].id for p in last if p.routing is not None for t in p.routing.task_ids]
    return sum(found) / len(found)


def test_equal_choices_are_one_request(tmp_path: Path, model: AnchorLM) -> None:
    planner = make_planner(tmp_path, model)
    ours, theirs = (row.stages(planner) for row in (AnchorMoE(), LDA()))
    assert [plan.requests for plan in ours] == [plan.requests for plan in theirs]


def test_other_experts_in_the_bank_change_nothing(tmp_path: Path, model: AnchorLM) -> None:
    assert model.bank is not None
    before = Autonomy().stages(make_planner(tmp_path, model))
    model.bank._tokens[0] = "answer"  # of another method, which acts on other tokens
    after = Autonomy().stages(make_planner(tmp_path, model))
    assert [plan.requests for plan in after] == [plan.requests for plan in before]


def test_autonomy_is_refused_for_full_mlp_experts(tmp_path: Path) -> None:
    model = small_model(replace(CONFIG, expert=ExpertConfig("mlp", layers="all")))
    assert model.bank is not None
    for number in range(3):
        model.bank.add(number)
    planner = make_planner(tmp_path, model)
    with pytest.raises(ValueError, match="anchor_moe_autonomy: autonomy needs LoRA .*mlp; or leave"):
        Autonomy().stages(planner)
    LDA().stages(planner)


def test_lda_is_refused_for_anchors_without_statistics(tmp_path: Path, model: AnchorLM) -> None:
    planner = make_planner(tmp_path, model)
    for path in LDA().anchor_files(TASKS, planner.folders):
        path.with_suffix(".stats.safetensors").unlink()
    with pytest.raises(ValueError, match=r"anchor_moe_lda: anchors of tasks \[4\] have no .*--methods"):
        LDA().stages(planner)
    Published().stages(planner)
