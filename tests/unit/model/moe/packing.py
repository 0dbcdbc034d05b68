"""Packs of the toy bank's experts, for the tests of packs."""

from pathlib import Path

import torch
from torch import nn

from model.moe.expert_pack import PackedExpert, packed_experts
from model.moe.experts import NO_EXPERT, ExpertBank, ExpertConfig
from model.moe.pack_format import Layout

TASKS = (0, 1, 3)
MIXED = [3, NO_EXPERT, 0, 1, 0, NO_EXPERT]


def save(bank: ExpertBank, task: int, folder: Path) -> Path:
    path = folder / f"expert_task_{task}.pt"
    bank.save(task, path)
    return path


def opened(paths: dict[int, Path]) -> dict[int, PackedExpert]:
    held = packed_experts(list(paths.values()))
    return {task: held[path] for task, path in paths.items() if path in held}


def bank_of(paths: dict[int, Path], toy: nn.Module) -> ExpertBank:
    bank = ExpertBank(toy, ExpertConfig(rank=3, alpha=6.0), "base-1")
    bank.add_packed(opened(paths))
    return bank


def same(bank: ExpertBank, other: ExpertBank, task: int) -> bool:
    one, two = bank.state(task), other.state(task)
    return all(torch.equal(value, two[key]) for key, value in one.items())


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def row_bytes(pack: Path) -> tuple[int, int]:
    """Bytes before the first row, and of a row."""
    with pack.open("rb") as file:
        layout = Layout.read(file.fileno())
    assert layout is not None
    return layout.offset(0), layout.row_bytes


def change(lora: ExpertBank, task: int) -> None:
    lora.load_state(task, {key: value + 1 for key, value in lora.state(task).items()})
