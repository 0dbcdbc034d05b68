"""Progressive layered extraction: gates between the experts after every stage of the encoder (Tang et al.,
RecSys 2020), for encoders with the stages of a ResNet.

    r_t^0 = x,  r_t^{i+1} = sum_k g_t^i(r_t^i)_k e_k^i(r_t^i),  e^0 = conv1, bn1, ReLU, pooling; e^i = layer_i

The shared experts see every task's own features, so nothing is computed once for all tasks, and their
running statistics are updated once per task.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.moe.autonomy import mix
from model.mtl.architectures import Architecture, EncoderClass, Shared, apply_gate, gate
from model.mtl.experts import ExpertCounts

STAGES = 5
PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def stages(encoder: nn.Module) -> list[nn.Module]:
    """The five stages of an encoder. Raises ValueError where it is no ResNet."""
    missing = [part for part in PARTS if not hasattr(encoder, part)]
    if missing:
        raise ValueError(
            f"PLE needs an encoder with the stages of a ResNet; {type(encoder).__name__} has no "
            f"{', '.join(missing)}"
        )
    first = nn.Sequential(*(getattr(encoder, part) for part in PARTS[:4]))
    return [first, *(getattr(encoder, part) for part in PARTS[4:])]


class LayeredExperts(nn.Module):
    """Stages of all experts, and the gates between them."""

    def __init__(
        self,
        shared: Sequence[nn.Module],
        specific: dict[str, Sequence[nn.Module]],
        img_size: Sequence[int],
    ) -> None:
        super().__init__()
        parts = [stages(encoder) for encoder in shared]
        own = {task: [stages(encoder) for encoder in encoders] for task, encoders in specific.items()}
        self.shared_layer = nn.ModuleDict(
            {str(i): nn.ModuleList(encoder[i] for encoder in parts) for i in range(STAGES)}
        )
        self.specific_layer = nn.ModuleDict(
            {
                str(i): nn.ModuleDict(
                    {task: nn.ModuleList(encoder[i] for encoder in found) for task, found in own.items()}
                )
                for i in range(STAGES)
            }
        )
        sizes = input_sizes(parts[0], img_size)
        self.gate_specific = nn.ModuleDict(
            {
                task: nn.ModuleList(gate(size, len(shared) + len(found)) for size in sizes)
                for task, found in specific.items()
            }
        )

    def forward(self, inputs: Tensor, task: str) -> Tensor:
        """Features of one task after the last stage."""
        features = inputs
        gates: nn.ModuleList = self.gate_specific[task]  # type: ignore[assignment]
        for i in range(STAGES):
            own: nn.ModuleDict = self.specific_layer[str(i)]  # type: ignore[assignment]
            shared: nn.ModuleList = self.shared_layer[str(i)]  # type: ignore[assignment]
            experts: list[nn.Module] = [*shared, *own[task]]  # type: ignore[misc]
            gated: nn.Sequential = gates[i]  # type: ignore[assignment]
            weights = apply_gate(gated, features)
            features = mix([expert(features) for expert in experts], weights)
        return features


@torch.no_grad()
def input_sizes(encoder: Sequence[nn.Module], img_size: Sequence[int]) -> list[int]:
    """Number of features that enters each stage, by a probe of zeros that leaves no trace in the encoder."""
    training = encoder[0].training
    probe, sizes = torch.zeros(1, *img_size), []
    for stage in encoder:
        sizes.append(probe.numel())
        probe = stage.eval()(probe)
        stage.train(training)
    return sizes


class PLE(Architecture):
    """Progressive layered extraction; needs at least one shared expert."""

    def build(
        self,
        encoder_class: EncoderClass,
        img_size: Sequence[int] | None,
        num_experts: Sequence[int] | None,
    ) -> None:
        self.counts = ExpertCounts.parse(num_experts, self.task_name)
        if self.multi_input or img_size is None or not self.counts.shared:
            raise ValueError(
                "PLE needs one input for all tasks, img_size (such as 3 288 384) and a shared expert; got "
                f"multi_input={self.multi_input}, img_size={img_size}, num_experts={list(num_experts or ())}"
            )
        shared = [encoder_class() for _ in range(self.counts.shared)]
        self.separate(shared)
        specific: dict[str, Sequence[nn.Module]] = {}
        for task, count in zip(self.task_name, self.counts.specific, strict=True):
            specific[task] = [encoder_class() for _ in range(count)]
            self.separate(specific[task])
        self.encoder = LayeredExperts(shared, specific, img_size)

    def shared(self, inputs: Tensor) -> Shared:
        return ()

    def task_features(self, task: str, inputs: Tensor, shared: Shared) -> Tensor:
        return self.encoder(inputs, task)

    def shared_modules(self) -> Sequence[nn.Module]:
        return [self.encoder.shared_layer]
