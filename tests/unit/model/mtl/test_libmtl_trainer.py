"""Our architectures in the hands of LibMTL's own trainer, where that is installed: the steps of a plain loop.

LibMTL 1.1.5, the newest on the package index, is older than the torch that runs here: it imports
`torchvision.models.utils`, wants a GPU, and calls `.next()` on iterators. The fixture lends it these; later
versions from its repository need none of it.
"""

import importlib.util
import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.mtl.architectures import AOEMTL, STL, Architecture
from model.mtl.encoders import PlainEncoder
from tests.unit.train.mtl import small

pytestmark = pytest.mark.filterwarnings("ignore")
TASKS = ("a", "b")
STEPS = 3
IMAGE = [3, 8, 8]
EXPERTS = {kind: number for kind, number in small.EXPERTS.items() if kind is not STL}


class OldTorch:
    """torch, whose every device is the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def device(self, name: str) -> torch.device:
        return torch.device("cpu")


@pytest.fixture
def libmtl(monkeypatch: pytest.MonkeyPatch) -> Any:
    if importlib.util.find_spec("torchvision.models.utils") is None:
        old = types.ModuleType("torchvision.models.utils")
        old.load_state_dict_from_url = torch.hub.load_state_dict_from_url  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torchvision.models.utils", old)
    package = pytest.importorskip("LibMTL")
    monkeypatch.setattr(sys.modules["LibMTL.trainer"], "torch", OldTorch())
    return package


class OldIterator:
    """Batches one by one, also by `next`."""

    def __init__(self) -> None:
        self.number = 0

    def __iter__(self) -> "OldIterator":
        return self

    def __next__(self) -> tuple[Tensor, dict[str, Tensor]]:
        if self.number == STEPS:
            raise StopIteration
        self.number += 1
        return batch(self.number - 1)

    next = __next__


class Batches:
    """What LibMTL takes for a data loader."""

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> OldIterator:
        return OldIterator()


def batch(number: int) -> tuple[Tensor, dict[str, Tensor]]:
    image = torch.rand(2, *IMAGE, generator=torch.Generator().manual_seed(number))
    return image, {"a": image.mean(1, keepdim=True), "b": image[:, :1]}


def output_error(output: Tensor, target: Tensor) -> Tensor:
    return (nn.functional.interpolate(output, target.shape[2:]) - target).square().mean()


def encoder() -> PlainEncoder:
    return PlainEncoder((2, 3, 4, 4))


def heads() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({task: nn.Conv2d(4, 1, 1) for task in TASKS})


def trained_by_hand(architecture: type[Architecture]) -> nn.Module:
    decoders = heads()
    model = architecture(TASKS, encoder, decoders, num_experts=EXPERTS[architecture], img_size=IMAGE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number in range(STEPS):
        image, targets = batch(number)
        outputs = model(image)
        optimizer.zero_grad()
        sum(output_error(outputs[task], targets[task]) for task in TASKS).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize(
    ("architecture", "weighting"), [*((a, "EW") for a in EXPERTS), (AOEMTL, "UW"), (AOEMTL, "PCGrad")]
)
def test_libmtls_trainer(architecture: type[Architecture], weighting: str, libmtl: Any) -> None:
    class Loss(libmtl.loss.AbsLoss):  # type: ignore[misc, name-defined]
        def compute_loss(self, pred: Tensor, gt: Tensor) -> Tensor:
            return output_error(pred, gt)

    class Metric(libmtl.metrics.AbsMetric):  # type: ignore[misc, name-defined]
        def update_fun(self, pred: Tensor, gt: Tensor) -> None:
            self.record.append(float(output_error(pred, gt)))

        def score_fun(self) -> list[float]:
            return [sum(self.record) / len(self.record)]

    about = {"metrics": ["error"], "weight": [0]}
    trainer = libmtl.Trainer(
        task_dict={task: {**about, "metrics_fn": Metric(), "loss_fn": Loss()} for task in TASKS},
        weighting=getattr(libmtl.weighting, weighting),
        architecture=architecture,
        encoder_class=encoder,
        decoders=heads(),
        rep_grad=False,
        multi_input=False,
        optim_param={"optim": "sgd", "lr": 0.1},
        scheduler_param={"scheduler": "step", "step_size": 100, "gamma": 0.5},
        weight_args={},
        arch_args={"num_experts": EXPERTS[architecture], "img_size": IMAGE},
    )
    before = [p.clone() for p in trainer.model.parameters()]
    trainer.train(Batches(), Batches(), epochs=1)
    assert not any(torch.equal(p, old) for p, old in zip(trainer.model.parameters(), before, strict=True))
    if weighting == "EW":
        wanted = trained_by_hand(architecture).state_dict()
        for name, value in trainer.model.state_dict().items():
            torch.testing.assert_close(value, wanted[name], msg=name)
