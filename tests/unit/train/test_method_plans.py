"""What the plan says of methods without plain experts: held against models and runs of the tiny backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import nn

from methods.anchor_moe import AnchorMoE
from methods.ewc import EWC
from methods.l2p import LearningToPrompt, PoolTraining
from methods.moe_lora import MoeLora
from model.language_model.anchor_lm import AnchorLM
from model.language_model.loading import Loading
from model.language_model.prompt_pool import PromptPool
from model.moe.experts import ExpertConfig
from model.moe.gated import open_bank
from tests.memory_tally import MemoryTally
from tests.unit.train.real_runs import Setting, setting
from train.arguments import PRESETS
from train.budget_tables import format_budget
from train.checkpoints import CheckpointFolder
from train.config import TrainConfig
from train.method_plans import method_plans
from train.reporting import Reporting

TINY = replace(PRESETS["tiny"], epochs=1, per_device_batch=4, expert=ExpertConfig())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting("tiny", tmp_path_factory.mktemp("store"))


def numbers(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@pytest.mark.parametrize("method", [MoeLora(), MoeLora(moe_branches=8)])
def test_branches_and_gates_are_counted_as_they_are_built(made: Setting, method: MoeLora) -> None:
    config = replace(TINY, expert=replace(TINY.expert, projections=("q_proj", "down_proj")))
    plan = method_plans({"moe_lora": method}, made.budget(config), Loading(), "question")["moe_lora"]
    bank = open_bank(made.backbone.llm, method.expert(config.expert))
    try:
        bank.add(0, generator=torch.Generator().manual_seed(0))
        bank.train_only(0)
        learning = [parameter for parameter in made.backbone.llm.parameters() if parameter.requires_grad]
        learning = learning or [parameter for parameter in bank.parameters() if parameter.requires_grad]
        assert plan.parameters == numbers(learning)
    finally:
        bank.detach()


@pytest.mark.parametrize("method", [LearningToPrompt(), LearningToPrompt(l2p_prompts=8, l2p_length=3)])
def test_a_pool_is_counted_as_it_is_built(made: Setting, method: LearningToPrompt) -> None:
    plan = method_plans({"l2p": method}, made.budget(TINY), Loading(), "question")["l2p"]
    text = made.inputs.routing(made.samples).values["text"]
    widths = made.backbone.encoder.routing_widths | {"text": text.shape[1]}
    pool = PromptPool(method.pool, widths, made.inputs.embedding.embedding_dim)
    assert plan.parameters == numbers(list(pool.parameters()))
    plan = method_plans({"l2p": method}, made.budget(TINY), Loading(), "clip")["l2p"]
    assert plan.parameters is None, "how wide the text's features are is not known"


def test_gated_training_takes_the_memory_that_was_planned(made: Setting, tmp_path: Path) -> None:
    method = MoeLora()
    plan = method_plans({"moe_lora": method}, made.budget(TINY), Loading(), "question")["moe_lora"]
    assert plan.memory is not None
    ran = made.trained(replace(TINY, expert=method.expert(TINY.expert)), tmp_path)
    assert plan.memory.total == pytest.approx(ran, rel=0.15)


def trained_pool(made: Setting, config: TrainConfig, method: LearningToPrompt, folder: Path) -> int:
    """Peak bytes of tensors while a pool is trained."""
    for state in (AcceleratorState, GradientState):
        state._reset_state()
    precision = "no" if config.precision == "fp32" else config.precision
    model, inputs = AnchorLM(made.backbone.llm), made.inputs
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    features = inputs.routing(made.samples)
    widths = inputs.encoder.routing_widths | {"text": features.values["text"].shape[1]}
    pool = PromptPool(method.pool, widths, inputs.embedding.embedding_dim)
    pool.start(inputs.embedding, torch.Generator().manual_seed(0))
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    shop: Any = SimpleNamespace(config=config, model=model, inputs=inputs, accelerator=accelerator)
    ends = CheckpointFolder(folder, {}), Reporting(folder=folder, progress=False)
    training = PoolTraining(method, pool, pool.query(features), shop, made.samples, *ends)
    tally = MemoryTally()
    tally.add([*model.parameters(), *made.backbone.encoder.parameters(), *pool.parameters()])
    with tally:
        training.run()
    return tally.peak


@pytest.mark.parametrize(
    ("kind", "precision", "place", "checkpointing"),
    [
        ("tiny", "fp32", "answer", False),
        ("middle", "fp32", "text", False),
        ("middle", "bf16", "answer", False),
        ("middle", "bf16", "answer", True),
    ],
)
def test_training_a_pool_takes_the_memory_that_was_planned(
    kind: str, precision: Any, place: str, checkpointing: bool, tmp_path: Path
) -> None:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    made, method = setting(kind, tmp_path / "store", dtype), LearningToPrompt(l2p_place=place)
    config = replace(TINY, precision=precision, gradient_checkpointing=checkpointing)
    plan = method_plans({"l2p": method}, made.budget(config), Loading(dtype), "question")["l2p"]
    assert plan.memory is not None
    frozen = plan.memory.llm + plan.memory.encoders
    ran = trained_pool(made, config, method, tmp_path)
    assert plan.memory.total - frozen == pytest.approx(ran - frozen, rel=0.1)


def test_hours_follow_from_what_the_method_runs(made: Setting) -> None:
    budget = made.budget(TINY)
    methods = {"moe_lora": MoeLora(), "l2p": LearningToPrompt()}
    for plan in method_plans(methods, budget, Loading(), "question").values():
        learned = TINY.epochs * len(made.samples)
        prefixes = budget.workload.prompts * plan.flops.prefix
        seconds = (learned * plan.flops.repeated + prefixes) / (0.35 * 312e12)
        assert plan.training_hours[0] == pytest.approx(seconds / 3600)
        assert plan.training_hours[0] != pytest.approx(budget.runs[0].training_hours, rel=1e-3)


def test_what_is_not_counted_is_said_by_name(made: Setting) -> None:
    budget = made.budget(TINY)
    plain = {"anchor_moe": AnchorMoE(), "ewc": EWC()}
    assert method_plans(plain, budget, Loading(), "question") == {}
    assert "trained by these methods" not in format_budget(budget, "tiny")
    methods = {**plain, "moe_lora": MoeLora(), "l2p": LearningToPrompt()}
    text = format_budget(replace(budget, methods=method_plans(methods, budget, Loading(), "clip")), "tiny")
    [gated] = [line for line in text.splitlines() if line.startswith("  moe_lora: 4 branches of rank 4")]
    [pool] = [line for line in text.splitlines() if line.startswith("  l2p: 16 prompts of 16 tokens")]
    assert "not counted" not in gated and pool.count("not counted") == 2
    assert text.endswith("plain lora experts and do not hold for moe_lora and l2p")
    with pytest.raises(ValueError, match="moe_lora: cuts a LoRA into branches, but --expert_kind is 'mlp'"):
        method_plans(methods, made.budget(replace(TINY, expert=ExpertConfig("mlp"))), Loading(), "question")
