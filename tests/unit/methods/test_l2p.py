"""Training of a prompt pool: what learns, from which loss, resumed to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from methods.l2p import LearningToPrompt, PromptNLL
from model.language_model.prompt_pool import PromptPool, load_pool
from model.moe.experts import NO_EXPERT
from model.moe.routing_records import RoutingFeatures
from tests.unit.train.small_training import CONFIG, StubInputs, small_model
from train.cells import Cell
from train.checkpoints import CheckpointFolder
from train.config import TrainConfig
from train.reporting import Reporting
from train.run_cell import Workshop

METHOD = LearningToPrompt(l2p_prompts=5, l2p_length=2, l2p_top=2, l2p_learning_rate=1e-2)
SAMPLES: list[Any] = [
    SimpleNamespace(index=i, id=f"s{i}", source=Path("f.json"), length=6 + i % 3) for i in range(7)
]


class Inputs(StubInputs):
    """Each sample's routing feature depends on its number."""

    base_identity = "base-1"
    encoder = SimpleNamespace(routing_widths={"text": 9, "video": 3})

    def __init__(self, embedding: torch.nn.Embedding) -> None:
        self.embedding = embedding

    def routing(self, samples: Sequence[Any]) -> RoutingFeatures:
        rows = [torch.randn(4, generator=torch.Generator().manual_seed(s.index)) for s in samples]
        present = torch.ones(len(samples), dtype=torch.bool)
        return RoutingFeatures({"text": torch.stack(rows)}, {"text": present})


def workshop(config: TrainConfig = CONFIG) -> Workshop:
    model = small_model(config)
    inputs: Any = Inputs(model.llm.get_input_embeddings())
    assert model.bank is not None
    return Workshop(model, model.bank, inputs, Accelerator(cpu=True), config, Reporting(progress=False))


def learn(
    folder: Path,
    config: TrainConfig = CONFIG,
    *,
    method: LearningToPrompt = METHOD,
    task_id: int = 0,
    stop_after: int | None = None,
) -> dict[str, Tensor]:
    """Train one task's pool in `folder`, from the pool of the task before if there is one; its tensors."""
    shop = workshop(config)
    start = folder / f"expert_task_{task_id - 1}.pt"
    cell = Cell("l2p", task_id, (), folder, None, folder, start_from=start if task_id else None)
    reporting = replace(shop.reporting, folder=folder, save_every=1)
    checkpoint = CheckpointFolder(folder / f"ckpt{task_id}", {"config": config.identity()})
    if stop_after is not None:
        save, saved = checkpoint.save, []

        def stopping(state: dict[str, Any]) -> None:
            save(state)
            saved.append(state["step"])
            if len(saved) == stop_after:
                raise KeyboardInterrupt

        checkpoint.save = stopping  # type: ignore[method-assign]
    summary = method.learn(cell, shop, SAMPLES, checkpoint, reporting)
    assert summary["steps"] == 4
    return load_pool(cell.expert, "base-1")[0].state()


def test_prompts_and_keys_learn_and_choices_are_counted(tmp_path: Path) -> None:
    first = learn(tmp_path)
    fresh = PromptPool(METHOD.pool, {"text": 4, "video": 3}, 16)
    fresh.start(small_model().llm.get_input_embeddings(), torch.Generator().manual_seed(CONFIG.seed))
    moved = (first["prompts"] - fresh.prompts).flatten(1).abs().sum(1) > 0
    assert 2 <= moved.sum() <= 5 and torch.equal(moved, (first["keys"] - fresh.keys).abs().sum(1) > 0)
    assert first["counts"].sum() == 2 * len(SAMPLES)
    second = learn(tmp_path, task_id=1)
    assert second["counts"].sum() == 4 * len(SAMPLES)
    assert second["counts"].argmin() != first["counts"].argmin() or (second["counts"] > 0).all()


def test_only_the_pool_learns(tmp_path: Path) -> None:
    shop = workshop()
    before = {name: value.clone() for name, value in shop.model.llm.state_dict().items()}
    cell = Cell("l2p", 0, (), tmp_path, None, tmp_path)
    METHOD.learn(
        cell, shop, SAMPLES, CheckpointFolder(tmp_path / "c", {}), replace(shop.reporting, folder=tmp_path)
    )
    assert all(torch.equal(value, before[name]) for name, value in shop.model.llm.state_dict().items())
    assert not any(parameter.requires_grad for parameter in shop.model.parameters())


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    wanted = learn(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "broken", stop_after=2)
    resumed = learn(tmp_path / "broken")
    assert all(torch.equal(value, wanted[name]) for name, value in resumed.items())
    assert (tmp_path / "whole" / "expert_task_0.pt").read_bytes() == (
        tmp_path / "broken" / "expert_task_0.pt"
    ).read_bytes()


def test_micro_batches_give_the_step_of_one_large_batch(tmp_path: Path) -> None:
    split = learn(tmp_path / "a")
    whole = learn(tmp_path / "b", replace(CONFIG, per_device_batch=4, accumulation=1))
    for name, value in split.items():
        torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_changes_no_result(tmp_path: Path) -> None:
    plain, shop = learn(tmp_path / "a"), workshop()
    shop.model.enable_gradient_checkpointing()
    cell = Cell("l2p", 0, (), tmp_path / "b", None, tmp_path)
    METHOD.learn(
        cell, shop, SAMPLES, CheckpointFolder(tmp_path / "c", {}), replace(shop.reporting, folder=tmp_path)
    )
    for name, value in load_pool(cell.expert, "base-1")[0].state().items():
        torch.testing.assert_close(value, plain[name], rtol=1e-4, atol=1e-5)


def test_the_loss_is_that_of_the_answers_and_the_pull_of_the_keys() -> None:
    shop = workshop()
    pool = PromptPool(METHOD.pool, {"text": 4}, 16)
    pool.start(shop.inputs.embedding, torch.Generator().manual_seed(0))
    batch = shop.inputs.batch(SAMPLES[:3], with_answers=True)
    query = pool.query(shop.inputs.routing(SAMPLES[:3]))
    chosen = pool.choose(query)
    answers = shop.model(pool.prompted(batch, chosen), [NO_EXPERT] * 3).sum
    got = PromptNLL(shop.model, pool, 0.0, 0.7)(batch, query)
    expected = answers + 0.7 * 2 * pool.pull(query, chosen).sum()  # two answer tokens each
    torch.testing.assert_close(got, expected, check_dtype=False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"l2p_top": 17}, "17 of 16 prompts"),
        ({"l2p_place": "front"}, "place: got 'front'"),
        ({"l2p_pull": -1.0}, "--l2p_pull: got -1.0"),
        ({"l2p_learning_rate": float("nan")}, "--l2p_learning_rate: got nan"),
    ],
)
def test_impossible_settings_raise(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearningToPrompt(**setting)
