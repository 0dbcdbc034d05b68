"""The learned-gate mixture in training: what it is made of, resumed to the bit, its bank gone afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data.folders import StudyFolders
from methods.moe_lora import MoeLora
from model.moe.expert_layers import ExpertLinear
from model.moe.expert_sites import ExpertConfig, GatedConfig
from model.moe.gated import GatedBank, GatedLinear
from tests.unit.train.small_training import CONFIG, small_model, training
from train.cells import Cell
from train.config import TrainConfig
from train.recipe import Recipe
from train.run_cell import Workshop, _workshop_for

GATED = replace(CONFIG, expert=GatedConfig(rank=4, branches=2, layers="all"))


def test_it_is_made_of_the_configured_lora(tmp_path: Path) -> None:
    plain = ExpertConfig(rank=8, alpha=4.0, layers=(1, 3), projections=("q_proj",), tokens="text")
    made = MoeLora(moe_branches=2).expert(plain)
    assert made == GatedConfig(
        rank=8, alpha=4.0, layers=(1, 3), projections=("q_proj",), tokens="text", branches=2
    )
    with pytest.raises(ValueError, match="--expert_kind is 'mlp'"):
        MoeLora().expert(ExpertConfig(kind="mlp"))
    with pytest.raises(ValueError, match="rank 6 in 4 branches"):
        MoeLora().expert(ExpertConfig(rank=6))


def test_each_task_goes_on_from_the_one_before_and_takes_nothing_over(tmp_path: Path) -> None:
    tasks = tuple(SimpleNamespace(id=k, train=tmp_path / f"{k}.json", name=str(k)) for k in range(3))
    benchmark: Any = SimpleNamespace(path=tmp_path, tasks=tasks)
    cells = MoeLora().cells(benchmark, StudyFolders(tmp_path))
    assert [cell.start_from for cell in cells] == [None, cells[0].expert, cells[1].expert]
    assert not any(cell.recipe.plain(cell) for cell in cells)
    assert {cell.expert.parent for cell in cells} == {tmp_path / "comparisons" / "moe_lora" / "experts"}


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell("moe_lora", 0, (), tmp_path, None, tmp_path, recipe=MoeLora(moe_branches=2))


def test_its_bank_stands_in_for_the_plain_one_while_it_trains(cell: Cell) -> None:
    config = TrainConfig(expert=ExpertConfig(rank=4, layers="all"))
    model = small_model(config)
    bank = model.bank
    shop = Workshop(model, bank, *[None] * 2, config, None)  # type: ignore[arg-type]
    layers = [name for name, module in model.llm.named_modules() if isinstance(module, ExpertLinear)]
    with _workshop_for(cell, shop) as own:
        assert own.config.expert == GatedConfig(rank=4, branches=2, layers="all")
        assert isinstance(own.bank, GatedBank) and model.bank is own.bank
        assert all(isinstance(model.llm.get_submodule(name), GatedLinear) for name in layers)
    assert model.bank is bank
    assert all(model.llm.get_submodule(name) in bank.layers.values() for name in layers)
    plain = replace(cell, recipe=Recipe())
    with _workshop_for(plain, shop) as own:
        assert own is shop


def test_gate_and_branches_learn_and_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, bank = training(tmp_path / "whole", GATED, model=small_model(GATED, GatedBank))
    before = bank.state(0)
    whole.run()
    wanted = bank.state(0)
    assert all(not torch.equal(wanted[key], before[key]) for key in wanted)
    assert sum("lora_gate" in key for key in wanted) == len(wanted) / 3

    broken, _ = training(tmp_path / "broken", GATED, model=small_model(GATED, GatedBank))
    take_step, done = broken._step, []

    def two_steps(step: int) -> tuple[float, float]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(step)
        return take_step(step)

    broken._step = two_steps  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    resumed, bank = training(tmp_path / "broken", GATED, model=small_model(GATED, GatedBank))
    resumed.run()
    assert all(torch.equal(value, wanted[key]) for key, value in bank.state(0).items())


def test_gradient_checkpointing_changes_no_result(tmp_path: Path) -> None:
    plain, plain_bank = training(tmp_path / "a", GATED, model=small_model(GATED, GatedBank))
    saving, saving_bank = training(tmp_path / "b", GATED, model=small_model(GATED, GatedBank))
    saving.model.enable_gradient_checkpointing()
    plain.run()
    saving.run()
    for key, value in plain_bank.state(0).items():
        torch.testing.assert_close(value, saving_bank.state(0)[key], rtol=1e-5, atol=1e-6)
