"""The loop learns, resumes to the bit, and stops on a loss that is not finite."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.unit.train.small_training import CONFIG, training


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, dropout: float) -> None:
    config = replace(CONFIG, lora_dropout=dropout)
    whole, bank = training(tmp_path / "whole", config)
    whole.run()
    wanted = bank.state(0)

    torch.manual_seed(99)  # what the global generator did before decides nothing
    broken, _ = training(tmp_path / "broken", config)
    steps = iter(range(2))
    take_step = broken._step
    broken._step = lambda step: (
        take_step(step)
        if next(steps, None) is not None
        else (_ for _ in ()).throw(  # type: ignore[method-assign]
            KeyboardInterrupt
        )
    )
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    resumed, bank = training(tmp_path / "broken", config)
    summary = resumed.run()
    assert summary["steps"] == 4
    for key, value in bank.state(0).items():
        assert torch.equal(value, wanted[key]), key


def test_a_run_with_no_step_left_knows_its_last_loss(tmp_path: Path) -> None:
    whole, _ = training(tmp_path)
    wanted = whole.run()["final_loss"]
    again, _ = training(tmp_path)  # killed after its last checkpoint, before the expert was written
    assert again.run()["final_loss"] == wanted and math.isfinite(wanted)


def test_only_the_expert_learns(tmp_path: Path) -> None:
    made, bank = training(tmp_path)
    backbone = {name: value.clone() for name, value in made.model.llm.state_dict().items()}
    before = bank.state(0)
    made.run()
    assert all(torch.equal(value, backbone[name]) for name, value in made.model.llm.state_dict().items())
    assert any(not torch.equal(value, before[key]) for key, value in bank.state(0).items())
    assert not any(parameter.requires_grad for parameter in made.model.parameters())


def test_accumulation_gives_the_step_of_one_large_batch(tmp_path: Path) -> None:
    split, split_bank = training(tmp_path / "a")
    whole, whole_bank = training(tmp_path / "b", replace(CONFIG, per_device_batch=4, accumulation=1))
    split.run()
    whole.run()
    for key, value in split_bank.state(0).items():
        torch.testing.assert_close(value, whole_bank.state(0)[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_changes_no_result(tmp_path: Path, dropout: float) -> None:
    config = replace(CONFIG, lora_dropout=dropout)
    plain, plain_bank = training(tmp_path / "a", config)
    saving, saving_bank = training(tmp_path / "b", config)
    saving.model.enable_gradient_checkpointing()
    plain.run()
    saving.run()
    for key, value in plain_bank.state(0).items():
        torch.testing.assert_close(value, saving_bank.state(0)[key], rtol=1e-5, atol=1e-6)


def test_dropout_and_smoothing_change_the_result_and_leave_torchs_generator_alone(tmp_path: Path) -> None:
    states = []
    for number, changed in enumerate(({}, {"lora_dropout": 0.3}, {"label_smoothing": 0.2})):
        made, bank = training(tmp_path / str(number), replace(CONFIG, **changed))  # type: ignore[arg-type]
        before = torch.get_rng_state()
        made.run()
        assert torch.equal(torch.get_rng_state(), before)
        states.append(bank.state(0)["model.layers.0.mlp.up_proj.lora_B.weight"])
    assert not torch.allclose(states[0], states[1])
    assert not torch.allclose(states[0], states[2])


def test_a_loss_that_is_not_finite_names_the_samples(tmp_path: Path) -> None:
    made, _ = training(tmp_path)
    made.model.llm.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"loss is nan; samples of this step: s\d"):
        made.run()


def test_a_prompt_over_the_limit_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"f\.json, index 1, id s1: .*7 tokens.*model_max_length 6"):
        training(tmp_path, replace(CONFIG, max_length=6))


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    made, _ = training(tmp_path)
    made.run()
    state = made.checkpoint.load()
    made.checkpoint.save({**state, "processes": 2})
    again, _ = training(tmp_path)
    with pytest.raises(ValueError, match="saved with 2 processes, resumed with 1"):
        again.run()


def test_a_checkpoint_of_an_older_version_is_refused(tmp_path: Path) -> None:
    made, _ = training(tmp_path)
    made.run()
    state = made.checkpoint.load()
    made.checkpoint.save({key: value for key, value in state.items() if key != "learned"})
    again, _ = training(tmp_path)
    with pytest.raises(ValueError, match="older version of this code"):
        again.run()
