"""The budget of a study: memory against what real runs take, steps against the plan of the loop."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from data.workload import Workload
from model.moe.experts import ExpertConfig
from model.planning.memory import inference_memory
from model.planning.sizes import BackboneSizes, PromptTokens
from model.planning.skeleton import build_skeleton, published_configs
from tests.unit.train.real_runs import Setting, setting
from train.arguments import PRESETS
from train.budget import Asking, Budget, Machine, make_budget
from train.config import TrainConfig
from train.plan import count_steps

TOLERANCE = 0.15
TINY = replace(PRESETS["tiny"], epochs=1, per_device_batch=4)
LORA = replace(TINY, expert=ExpertConfig())
MLP = replace(TINY, expert=ExpertConfig("mlp"), gradient_checkpointing=True)
ACCUMULATED = replace(MLP, per_device_batch=2, accumulation=2, gradient_checkpointing=False)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, torch.dtype], Setting]:
    """Backbones with eight encoded questions, made once each."""
    made: dict[tuple[str, torch.dtype], Setting] = {}

    def get(kind: str, dtype: torch.dtype) -> Setting:
        if (kind, dtype) not in made:
            made[kind, dtype] = setting(kind, tmp_path_factory.mktemp("store"), dtype)
        return made[kind, dtype]

    return get


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("tiny", TINY),
        ("tiny", ACCUMULATED),
        ("middle", LORA),
        ("middle", replace(MLP, precision="bf16")),
        ("middle", replace(LORA, expert=ExpertConfig(tokens="text"))),
    ],
    ids=["tiny", "tiny-mlp-accumulated", "middle-lora", "middle-mlp-bf16-checkpointing", "middle-text"],
)
def test_training_takes_the_memory_that_was_planned(
    kind: str, config: TrainConfig, settings: Callable[..., Setting], tmp_path: Path
) -> None:
    made = settings(kind, torch.bfloat16 if config.precision == "bf16" else torch.float32)
    assert made.budget(config).memory.total == pytest.approx(made.trained(config, tmp_path), rel=TOLERANCE)


@pytest.mark.parametrize(("kind", "expert"), [("tiny", "lora"), ("middle", "mlp")])
def test_answering_takes_the_memory_that_was_planned(
    kind: str, expert: str, settings: Callable[..., Setting]
) -> None:
    made, config = settings(kind, torch.float32), ExpertConfig(expert)
    budget = made.budget(LORA)
    planned = inference_memory(
        budget.sizes, config, budget.workload.longest, experts=2, rows=8, new_tokens=4, bytes_per_number=4
    )
    assert planned.total == pytest.approx(made.answered(config, 4), rel=TOLERANCE)


def workload(**changes: Any) -> Workload:
    prompt = PromptTokens(666, 14, 3)
    counts: dict[str, Any] = {
        "train_questions": (100, 33),
        "test_questions": (10, 20),
        "clips": 50,
        "frames": 400,
        "sounds": 40,
        "contexts": 50,
        "prompts": 120,
        "mean": prompt,
        "longest": prompt,
    }
    return Workload(**{**counts, **changes})


@cache
def published_sizes() -> BackboneSizes:
    return build_skeleton(published_configs()).sizes


def published(config: TrainConfig = PRESETS["published"], **changes: Any) -> Budget:
    sizes = published_sizes()
    return make_budget(sizes, config, workload(**changes), Machine((1, 4)), Asking())


def test_steps_and_hours_follow_from_questions_and_flops() -> None:
    budget, config = published(), PRESETS["published"]
    one, four = budget.runs
    assert one.steps == count_steps(100, 8, config.epochs) + count_steps(33, 8, config.epochs)
    assert four.steps == count_steps(100, 32, config.epochs) + count_steps(33, 32, config.epochs)
    each = budget.flops.forward + budget.flops.backward + budget.flops.recomputed
    seconds = config.epochs * 133 * each / (0.35 * 312e12)
    assert one.training_hours == pytest.approx(seconds / 3600)
    assert four.training_hours == pytest.approx(one.training_hours / 4)
    encoded = 50 * budget.flops.clip + 40 * budget.flops.sound
    assert one.encoding_hours == pytest.approx(encoded / (0.35 * 312e12) / 3600)
    assert one.evaluation_hours == pytest.approx(2 * 30 * budget.flops.answer / (0.35 * 312e12) / 3600)


def test_prefixes_that_do_not_fit_are_computed_every_time() -> None:
    config = replace(PRESETS["published"], precision="bf16", expert=ExpertConfig(tokens="answer"))
    few, many = published(config, prompts=2), published(config)
    assert (few.prefixes_kept, few.prefixes_distinct) == (2, 2)
    assert many.prefixes_kept < many.prefixes_distinct == 120
    extra = (many.runs[0].training_hours - few.runs[0].training_hours) * 3600 * 0.35 * 312e12
    assert extra == pytest.approx((config.epochs * 133 - 2) * many.flops.prefix)


def test_the_store_holds_each_clip_once() -> None:
    budget = published()
    assert budget.store_bytes == 50 * budget.clip_bytes + 40 * budget.sound_bytes


@pytest.mark.parametrize(
    ("values", "name"),
    [({"gpus": (0,)}, "--gpus"), ({"mfu": 1.5}, "--mfu"), ({"tflops": 0.0}, "--gpu_tflops")],
)
def test_impossible_machines_are_refused(values: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Machine(**values)
