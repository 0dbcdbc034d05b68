"""Optimiser steps in float64: losses before each step, learning rates, parameters at the end."""

import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ExponentialLR, StepLR

from model.mtl.heads import to_image
from tests.parity.aoe_sets import EXACT, architecture_case, losses_of
from tests.parity.recorded import RecordedSet


def test_optimiser_steps(aoe: RecordedSet) -> None:
    runs, tensors = aoe.file("train_steps.json"), aoe.file("train_steps.safetensors")
    assert list(runs)
    for name in runs:
        architecture, _, kind = name.rpartition(".")
        case = architecture_case(aoe, architecture)
        model = case.model(torch.float64)
        if kind == "adam":
            optimizer = Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
            schedule = StepLR(optimizer, step_size=2, gamma=0.5)
        else:
            optimizer = SGD(model.parameters(), lr=1e-2, momentum=0.9, weight_decay=1e-5)
            schedule = ExponentialLR(optimizer, gamma=0.9)
        losses, rates = [], []
        for _ in range(runs[name]["steps"]):
            outputs = model(case.tensors["input"].double())
            full = {task: to_image(out, tuple(case.sizes["image"])) for task, out in outputs.items()}
            loss = losses_of(full, case.targets)
            losses.append(loss.detach())
            rates.append(schedule.get_last_lr()[0])
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
            schedule.step()
        aoe.notes.close(
            torch.stack(losses), torch.tensor(runs[name]["losses"], dtype=torch.float64), EXACT, name
        )
        aoe.notes.close(torch.tensor(rates).double(), torch.tensor(runs[name]["lr"]).double(), EXACT, name)
        for key, value in model.state_dict().items():
            assert tensors.compare(f"{name}.{key}", value, EXACT), key
