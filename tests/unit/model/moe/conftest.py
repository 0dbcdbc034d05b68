"""A toy residual MLP stack with the module names of an LLM, and banks on it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.moe.experts import ExpertBank, ExpertConfig

WIDTH, HIDDEN, LAYERS = 12, 20, 4


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.up_proj = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down_proj = nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = Mlp()


class Toy(nn.Module):
    """`layers.{i}.mlp.{gate,up,down}_proj` (B, T, WIDTH) -> (B, T, WIDTH)"""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(
                    torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
                )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.layers:
            x = x + block.mlp(x)
        return x


def randomise(bank: ExpertBank, seed: int = 1) -> None:
    """Give every expert values that matter (a fresh B is zero)."""
    generator = torch.Generator().manual_seed(seed)
    for task_id in bank.task_ids:
        state = {
            key: 0.1 * torch.randn(value.shape, generator=generator)
            for key, value in bank.state(task_id).items()
        }
        bank.load_state(task_id, state)


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def toys() -> Callable[[int], Toy]:
    """Toy models by seed."""
    return Toy


@pytest.fixture
def fill() -> Callable[..., None]:
    """Puts random values into the experts of a bank."""
    return randomise


@pytest.fixture(params=["lora", "mlp"])
def bank(request: pytest.FixtureRequest, toy: Toy) -> ExpertBank:
    """A bank with experts 0, 1 and 3, of either kind."""
    made = ExpertBank(toy, ExpertConfig(kind=request.param, rank=3, alpha=6.0), "base-1")
    for task_id in (0, 1, 3):
        made.add(task_id, generator=torch.Generator().manual_seed(task_id))
    randomise(made)
    return made


@pytest.fixture
def lora(toy: Toy) -> ExpertBank:
    """A bank with LoRA experts 0, 1 and 3."""
    made = ExpertBank(toy, ExpertConfig(rank=3, alpha=6.0), "base-1")
    for task_id in (0, 1, 3):
        made.add(task_id, generator=torch.Generator().manual_seed(task_id))
    randomise(made)
    return made


@pytest.fixture
def x() -> Tensor:
    """Six rows of five tokens. (6, 5, WIDTH)"""
    return torch.randn(6, 5, WIDTH, generator=torch.Generator().manual_seed(7))
