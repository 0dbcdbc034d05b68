"""Encoders of dense tasks: image (B, 3, H, W) -> features (B, C, h, w), any image size.

Both have the stages of a ResNet (conv1, bn1, relu, maxpool, layer1 .. layer4), which PLE needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from model.mtl.architectures import Architecture
from model.mtl.convolutions import use_fast_gradients
from model.mtl.recompute import lean

PLAIN_WIDTHS = (64, 64, 128, 256)
LARGE = 2**19  # numbers in a batch of images, from which on memory is worth time
DEAR, DEAR_FOR_LONG = 256, 576  # multiply-adds by number


class StagedEncoder(nn.Module):
    """Runs its children in order.

    recompute_from: numbers in a batch of images from which on stages make again in the backward pass what
    stands between their dear convolutions (model/mtl/recompute.py). The same gradients, to the bit on a CPU.
    dear: multiply-adds by number from which on a convolution's results are kept. In a ResNet-50 256
    lets the stem run again and 1x1 convolutions on up to 128 channels, such as those that widen a bottleneck
    in the first two stages; 576 those on up to 512 too.
    soon: the backward pass follows at once, so the last stage, first in it, is better kept whole.
    kind, expected: what it is, and which weights it takes.
    """

    kind, expected = "an encoder", "its own"
    recompute_from = inf
    dear = DEAR
    soon = True

    def forward(self, image: Tensor) -> Tensor:
        children = list(self.children())
        stages = [nn.Sequential(*children[:-3]), *children[-3:]]  # the stem goes with the first layer
        if image.numel() < self.recompute_from or not torch.is_grad_enabled():
            return nn.Sequential(*stages)(image)
        last = stages.pop()
        for stage in stages:
            image = lean(stage, image, self.dear)
        return last(image) if self.soon else lean(last, image, self.dear)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load weights, for a ResNet in torchvision's layout. Raises ValueError naming what does not fit."""
        kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
        own = self.state_dict()
        missing = [name for name in own if name not in kept and not name.endswith("num_batches_tracked")]
        wrong = [name for name in kept if name not in own or own[name].shape != kept[name].shape]
        if missing or wrong:
            raise ValueError(
                f"weights for {self.kind}: missing {missing[:3]} ({len(missing)}), not fitting {wrong[:3]} "
                f"({len(wrong)}); expected {self.expected}"
            )
        self.load_state_dict(kept, strict=False)


def set_recompute(model: nn.Module, recompute: bool, least: int = LARGE) -> None:
    """Choose for all encoders of a model; `least` numbers in a batch it must have.

    What shared encoders keep is there during all tasks' passes, so they keep less.
    """
    shared = model.shared_modules() if isinstance(model, Architecture) else ()
    for_long = {encoder for module in shared for encoder in module.modules()}
    for module in model.modules():
        if isinstance(module, StagedEncoder):
            module.recompute_from = least if recompute else inf
            module.soon = module not in for_long
            module.dear = DEAR if module.soon else DEAR_FOR_LONG


class DilatedResNet50(StagedEncoder):
    """ResNet-50 with stages 3 and 4 dilated instead of strided: features at an eighth of the image, 2048
    channels, torchvision's layout of parameters without the classifier.

    state: ImageNet weights in torchvision's layout (`fc.*` is left out); random weights without.
    """

    kind, expected = "ResNet-50", "torchvision's resnet50"
    out_channels = 2048

    def __init__(self, state: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        network = resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
        for name, part in network.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, part)
        use_fast_gradients(self)
        if state is not None:
            self.load(state)


class PlainEncoder(StagedEncoder):
    """Seven 3x3 convolutions with normalisation and ReLU: features at a quarter of the image, 256 channels.

    The paper gives no layer sizes of its simple encoder. These come to the parameters of its table at
    288 x 384 with eight experts: 26 M (AoE, AoE-MTL), 30 M (CGC), 34 M (MMoE), 115 M (PLE).

    widths: channels of the stages; the last stage repeats the last width. state: weights of another one of
    these widths; random weights without.
    """

    kind, expected = "the plain encoder", "those of a plain encoder of the same --width"

    def __init__(
        self,
        widths: tuple[int, int, int, int] = PLAIN_WIDTHS,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        first, second, third, last = widths
        self.out_channels = last
        self.conv1 = nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(first), nn.ReLU(), nn.Identity()
        self.layer1 = block(first, second)
        self.layer2 = nn.Sequential(block(second, third, stride=2), block(third, last))
        self.layer3 = block(last, last)
        self.layer4 = nn.Sequential(block(last, last), block(last, last))
        if state is not None:
            self.load(state)


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())
