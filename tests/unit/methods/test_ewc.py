"""Fisher information and springs, against numbers worked out by hand."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from methods.ewc import EWC, Springs, fisher
from model.tensor_files import read_tensors
from train.cells import Cell

INPUTS = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])]  # gradients of the two questions' losses


class OneParameter:
    """A bank whose expert is one vector."""

    def __init__(self) -> None:
        self.theta = nn.Parameter(torch.tensor([0.5, 0.5]))
        self.held: list[int] = []

    def load(self, task_id: int, path: Path) -> None:
        self.held.append(task_id)

    def remove(self, task_id: int) -> None:
        self.held.remove(task_id)

    def train_only(self, task_id: int) -> list[nn.Parameter]:
        return [self.theta.requires_grad_(True)]

    def requires_grad_(self, wanted: bool) -> None:
        self.theta.requires_grad_(wanted)

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"w": (2,)}

    def use(self, ids: Any) -> Any:
        return nullcontext()


@pytest.fixture
def shop() -> Any:
    """Questions n with the loss theta . x_n."""
    bank = OneParameter()
    return SimpleNamespace(
        bank=bank,
        model=lambda batch, ids: SimpleNamespace(sum=bank.theta @ batch),
        inputs=SimpleNamespace(batch=lambda samples, **_: INPUTS[samples[0]]),
        accelerator=SimpleNamespace(autocast=nullcontext, is_main_process=True),
    )


def cell(folder: Path, task: int) -> Cell:
    before = folder / f"expert_task_{task - 1}.pt" if task else None
    return Cell("ewc", task, (), folder, None, folder, before, recipe=EWC())


def test_the_fisher_information_is_the_mean_square_of_the_gradients(tmp_path: Path, shop: Any) -> None:
    assert fisher(cell(tmp_path, 0), shop, [0, 1])["w"].tolist() == [5.0, 4.0]  # type: ignore[list-item]
    assert shop.bank.held == [] and not shop.bank.theta.requires_grad


def test_it_is_summed_over_the_tasks(tmp_path: Path, shop: Any) -> None:
    method = EWC()
    for task, questions in enumerate([[0, 1], [1]]):
        method.finish(cell(tmp_path, task), shop, questions)  # type: ignore[arg-type]
    found = [read_tensors(tmp_path / f"expert_task_{task}.ewc.safetensors")["w"] for task in (0, 1)]
    assert [values.tolist() for values in found] == [[5.0, 4.0], [14.0, 8.0]]


def test_the_springs_pull_back() -> None:
    theta = nn.Parameter(torch.tensor([1.0, 1.0]))
    springs = Springs({"w": theta}, {"w": torch.tensor([5.0, 4.0])}, stiffness=10.0)
    assert springs.penalty().item() == 0.0
    with torch.no_grad():
        theta += torch.tensor([0.5, -1.0])
    penalty = springs.penalty()
    assert penalty.item() == pytest.approx(10 / 2 * (5 * 0.25 + 4 * 1.0))
    penalty.backward()
    assert theta.grad is not None
    assert theta.grad.tolist() == pytest.approx([10 * 5 * 0.5, 10 * 4 * -1.0])


def test_it_is_refused_where_it_would_be_wrong(tmp_path: Path) -> None:
    for kind, precision, why in (("DEEPSPEED", "fp32", "not under DeepSpeed"), ("NO", "fp16", "fp16")):
        shop: Any = SimpleNamespace(
            accelerator=SimpleNamespace(distributed_type=SimpleNamespace(value=kind)),
            config=SimpleNamespace(precision=precision),
        )
        with pytest.raises(ValueError, match=f"ewc task 0: .*{why}"):
            EWC().refuse(cell(tmp_path, 0), shop)
    with pytest.raises(ValueError, match="--ewc_lambda: got -1"):
        EWC(ewc_lambda=-1)
