"""What the tests of the recorded AoE-MTL values share: tolerances, small encoders, models, losses.

Sizes, numbers of classes and experts are read from the recorded files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from model.mtl.architectures import AOEMTL, CGC, HPS, Architecture, MMoE
from model.mtl.losses import depth_loss, normal_loss, segmentation_loss
from model.mtl.ple import PLE
from tests.parity.recorded import Recorded, RecordedSet, Tolerance

FUSION = Tolerance("fusion rule, float64", 1e-10)
FORWARD = Tolerance("architectures, forward", 1e-5)
BACKWARD = Tolerance("architectures, gradients", 1e-4)
LOSS = Tolerance("dense losses", 1e-6)
EXACT = Tolerance("architectures and training, float64", 1e-9)

LOSSES = {"segmentation": segmentation_loss, "depth": depth_loss, "normal": normal_loss}
CLASSES: dict[str, type[Architecture]] = {cls.__name__: cls for cls in (AOEMTL, HPS, MMoE, CGC, PLE)}


class SmallEncoder(nn.Module):
    """Two convolutions, the first of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv2(self.conv1(image).relu()).relu()


class SmallStages(nn.Module):
    """The stages of a ResNet, one convolution each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)
        for number in range(1, 5):
            convolution = nn.Conv2d(channels, channels, 3, padding=1)
            self.add_module(f"layer{number}", nn.Sequential(convolution, nn.ReLU()))


@dataclass(frozen=True)
class ArchitectureCase:
    """One recorded architecture."""

    name: str
    tasks: list[str]
    index: Any  # its entry in arch_index.json
    sizes: Any  # arch_index.json
    tensors: Recorded

    @property
    def targets(self) -> dict[str, Tensor]:
        return {task: self.tensors[f"gt.{task}"] for task in self.tasks}

    def model(self, dtype: torch.dtype = torch.float32) -> Architecture:
        """The architecture in its recorded state."""
        channels, classes = self.sizes["encoder_channels"], self.sizes["seg_classes"]
        encoder = SmallStages if self.index["arch"] == "PLE" else SmallEncoder
        outputs = {"segmentation": classes, "depth": 1, "normal": 3}
        model = CLASSES[self.index["arch"]](
            self.tasks,
            partial(encoder, channels),
            {task: nn.Conv2d(channels, outputs[task], 1) for task in self.tasks},
            img_size=(3, *self.sizes["image"]),
            num_experts=self.index["num_experts"],
        )
        state = {k.removeprefix("state."): self.tensors[k] for k in self.tensors if k.startswith("state.")}
        model.load_state_dict(state)
        return model.to(dtype)


def architecture_case(aoe: RecordedSet, name: str) -> ArchitectureCase:
    sizes = aoe.file("arch_index.json")
    tensors = aoe.file(f"arch_{name}.safetensors")
    return ArchitectureCase(name, sizes["tasks"], sizes["cases"][name], sizes, tensors)


def losses_of(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """Losses in the order of the tasks."""
    return torch.stack([LOSSES[task](outputs[task], targets[task]) for task in outputs])
