"""Training: learns, resumes to the bit after a kill, chooses on validation, refuses what does not fit."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from model.mtl.architectures import HPS
from model.mtl.encoders import PlainEncoder
from tests.unit.train.mtl import small
from tests.unit.train.mtl.small import Images, batch, make_trainer
from train.mtl.batches import in_order, shuffled
from train.mtl.choices import WeightingConfig
from train.mtl.optim import OPTIMISERS, SCHEDULES, OptimConfig
from train.mtl.run import relative_loss
from train.mtl.trainer import Trainer, TrainerSettings, known
from train.reporting import Reporting

EPOCHS = 3
SET, VALIDATION = Images(10), (Images(10), [8, 9])


class Killed(Exception):
    """Stands for a SIGKILL."""


def kill_after(steps: int, step: Callable[..., Any]) -> Callable[..., Any]:
    """The same step, which raises when it is asked for more than these."""

    def step_or_stop(*arguments: Any) -> Any:
        nonlocal steps
        steps -= 1
        if steps < 0:
            raise Killed
        return step(*arguments)

    return step_or_stop


def run(trainer: Trainer, epochs: int = EPOCHS) -> dict[str, Any]:
    return trainer.train(SET, epochs, range(8), VALIDATION)


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [value.clone() for value in trainer.model.state_dict().values()]


def test_learns_and_keeps_the_best(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    best = run(trainer, 8)
    history = json.loads((tmp_path / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == list(range(1, 9))
    assert history[-1]["train_losses"][0] < history[0]["train_losses"][0]
    assert best == min(history, key=lambda entry: entry["selection"])
    content = torch.load(tmp_path / "best.pt", weights_only=True)
    assert content["entry"]["epoch"] == best["epoch"]
    assert content["config"]["weighting"]["name"] == "EW" and content["config"]["num_experts"] == [1, 1]
    trainer.model.load_state_dict(content["model"])
    assert trainer.test(*VALIDATION).scores == best["val_scores"]
    lines = [json.loads(line) for line in (tmp_path / "train_log.jsonl").read_text().splitlines()]
    assert sum("loss_near" in line for line in lines) == 16
    assert all(key in lines[0] for key in ("weight_far", "learning_rate"))


@pytest.mark.parametrize("weighting", ["EW", "UW", "DWA", "RLW", "GradNorm", "FAMO", "PCGrad", "Nash_MTL"])
def test_a_killed_run_ends_with_the_same_bits(
    weighting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_trainer(tmp_path / "whole", weighting=weighting)
    run(whole)
    broken = make_trainer(tmp_path / "broken", weighting=weighting, save_every=1)
    monkeypatch.setattr(broken, "backward", kill_after(3, broken.backward))
    with pytest.raises(Killed):
        run(broken)
    again = make_trainer(tmp_path / "broken", weighting=weighting, save_every=1)
    best = run(again)
    for ours, theirs in zip(weights(again), weights(whole), strict=True):
        assert torch.equal(ours, theirs)
    whole_history = [{**entry, "seconds": 0} for entry in whole.history]
    assert [{**entry, "seconds": 0} for entry in again.history] == whole_history
    assert best["epoch"] == min(whole.history, key=lambda entry: entry["selection"])["epoch"]
    for ours, theirs in zip(again.weighting.parameters(), whole.weighting.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_run_that_goes_on_logs_every_step_once(tmp_path: Path) -> None:
    """Killed before the first checkpoint, then after one and in the middle of a line."""
    make_trainer(tmp_path / "whole").train(SET, 2)
    log = tmp_path / "broken" / "train_log.jsonl"
    for after, steps in ((1, [1]), (5, [1, 2, 3, 3, 4, 5])):  # the end of an epoch is a line too
        trainer = make_trainer(tmp_path / "broken")
        trainer.backward = kill_after(after, trainer.backward)  # type: ignore[assignment]
        with pytest.raises(Killed):
            trainer.train(SET, 2)
        assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == steps
    with log.open("a") as file:
        file.write('{"step": 6, "lo')
    make_trainer(tmp_path / "broken").train(SET, 2)
    assert log.read_text() == (tmp_path / "whole" / "train_log.jsonl").read_text()
    make_trainer(tmp_path / "broken").train(SET, 2)  # all is done
    assert log.read_text() == (tmp_path / "whole" / "train_log.jsonl").read_text()


@pytest.mark.parametrize(
    ("optim", "scheduler"), [*((o, "step") for o in OPTIMISERS), *(("adam", s) for s in SCHEDULES)]
)
def test_every_optimiser_and_schedule_runs(optim: str, scheduler: str, tmp_path: Path) -> None:
    config = OptimConfig(optim, 1e-3, scheduler=scheduler, step_size=1, patience=0)
    trainer = make_trainer(tmp_path, optim=config)
    before = weights(trainer)
    run(trainer, 2)
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(trainer), strict=True))
    rates = [entry["learning_rate"] for entry in trainer.history]
    assert rates[0] == 1e-3
    assert rates[1] == {"step": 5e-4, "exp": 5e-4, "cos": pytest.approx(5e-4)}.get(scheduler, 1e-3)


def test_what_may_refuse_is_asked_while_steps_are_left(tmp_path: Path) -> None:
    """Before anything is written or loaded, when a run begins and when it goes on; not when it is done."""

    def refuse() -> None:
        raise ValueError("too little memory")

    with pytest.raises(ValueError, match="too little memory"):
        make_trainer(tmp_path).train(SET, 2, before_first_step=refuse)
    assert not list(tmp_path.iterdir())
    trainer = make_trainer(tmp_path)
    trainer.test = lambda *_: pytest.fail("validated")  # type: ignore[method-assign,assignment]
    with pytest.raises(pytest.fail.Exception, match="validated"):  # in the first epoch's end
        trainer.train(SET, 2, None, VALIDATION)
    with pytest.raises(ValueError, match="too little memory"):
        make_trainer(tmp_path).train(SET, 2, before_first_step=refuse)
    make_trainer(tmp_path).train(SET, 2)
    make_trainer(tmp_path).train(SET, 2, before_first_step=refuse)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    """Without a word from the caller about them; what is the caller's own counts as well."""
    run(make_trainer(tmp_path, config={"note": 1}), 1)
    for changes, message in (
        ({"weighting": "UW"}, "weighting.name: was 'EW', is 'UW'"),
        ({"optim": OptimConfig(lr=0.5)}, "optim.lr: was 0.01, is 0.5"),
        ({"architecture": HPS}, "arch: was 'AOEMTL', is 'HPS'"),
        ({"config": {"note": 2}}, "note: was 1, is 2"),
    ):
        with pytest.raises(ValueError, match=message):
            run(make_trainer(tmp_path, **{"config": {"note": 1}, **changes}), 1)
    with pytest.raises(ValueError, match="epochs: was 1, is 2"):
        run(make_trainer(tmp_path, config={"note": 1}), 2)


def test_another_model_by_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(make_trainer(tmp_path), 1)
    monkeypatch.setattr(small, "encoder", lambda: PlainEncoder((3, 3, 4, 4)))
    with pytest.raises(ValueError, match=r"state.pt do not fit this model .*use the same encoder") as caught:
        run(make_trainer(tmp_path), 1)
    assert str(tmp_path) in str(caught.value)


def test_arguments_that_are_no_json_values_are_told_by_their_type() -> None:
    args = {"img_size": (3, 8, 8), "router": torch.float32}
    found = known(HPS, args, WeightingConfig(), TrainerSettings())
    assert found["img_size"] == [3, 8, 8] and found["router"] == "dtype" and found["arch"] == "HPS"


def test_a_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        next(iter(trainer.model.decoders["near"].parameters())).fill_(float("nan"))
    with pytest.raises(ValueError, match="step 1: losses"):
        run(trainer)


def test_bf16(tmp_path: Path) -> None:
    AcceleratorState._reset_state(True)
    try:
        trainer = make_trainer(tmp_path, accelerator=Accelerator(cpu=True, mixed_precision="bf16"))
        run(trainer, 1)
        assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
        full = make_trainer(tmp_path)
        full.accelerator = None
        assert trainer.backward(*batch(range(3))).losses.dtype == torch.float32
    finally:
        AcceleratorState._reset_state(True)


@pytest.mark.parametrize("weighting", ["EW", "GradNorm", "MGDA", "PCGrad"])
def test_loss_scaling_as_of_fp16(weighting: str, tmp_path: Path) -> None:
    """A scale that fits changes no bit; one that overflows is halved, and the step is left out."""

    def trained(scale: float | None, factor: float = 1.0) -> Trainer:
        trainer = make_trainer(
            tmp_path / str(scale), weighting=weighting, optim=OptimConfig("sgd", 1e-2, scheduler="none")
        )
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale) if scale else None
        for task, rule in trainer.tasks.items():
            trainer.tasks[task] = replace(rule, loss=lambda o, t, f=rule.loss: factor * f(o, t))
        trainer.backward.tasks = trainer.tasks
        run(trainer, 1)
        return trainer

    start, plain = weights(make_trainer(tmp_path, weighting=weighting)), weights(trained(None))
    for ours, theirs in zip(weights(trained(2.0**10)), plain, strict=True):
        torch.testing.assert_close(ours, theirs)
    overflown = trained(2.0**127, 1e6)
    assert overflown.accelerator.scaler.get_scale() == 2.0**125
    names = [name for name, _ in overflown.model.named_parameters()]
    for name, before in zip(overflown.model.state_dict(), start, strict=True):
        assert name not in names or torch.equal(overflown.model.state_dict()[name], before), name


def test_numbers_that_cannot_be_trained_with(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        TrainerSettings(train_batch=1)
    with pytest.raises(ValueError, match="less than one batch of 3"):
        make_trainer(tmp_path).train(SET, 1, [0, 1])
    with pytest.raises(ValueError, match="0 epochs"):
        make_trainer(tmp_path).train(SET, 0)
    for wrong in (
        {"optim": "adamx"},
        {"scheduler": "poly"},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"gamma": -0.5},
        {"step_size": 0},
        {"T_max": -3},
        {"eta_min": -1.0},
        {"patience": -1},
        {"weight_decay": -1.0},
        {"momentum": float("inf")},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} .*expected"):
            OptimConfig(**wrong)
    for wrong in ({"T": 0.0}, {"update_weights_every": 0}, {"optim_niter": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} .*expected a positive number"):
            WeightingConfig(**wrong)
    for wrong in ({"save_every": 0}, {"every": 0}):
        with pytest.raises(ValueError, match="steps between checkpoints, .*expected at least 1"):
            Reporting(**wrong)


def test_batches() -> None:
    first = shuffled(range(10), 3, 0, 0)
    assert [len(b) for b in first] == [3, 3, 3] and first == shuffled(range(10), 3, 0, 0)
    assert first != shuffled(range(10), 3, 0, 1) != shuffled(range(10), 3, 1, 1)
    assert in_order(range(5), 2) == [[0, 1], [2, 3], [4]]
    assert relative_loss({"a": 1.0, "b": 0.0}, {"a": 2.0, "b": 0.0}) == 0.75
    assert relative_loss({"a": float("nan")}, {"a": 2.0}) == float("inf")
