"""Multi-task architectures behind one interface: what is computed once for all tasks, what for each.

    shared(x)                      computed once a batch
    task_features(task, x, shared) what enters the task's head
    forward(x) = {task: decoders[task](task_features(task, x, shared(x)))}

The split lets a trainer go forward and backward task by task, so that one task's activations are freed
before the next task starts (train/mtl/backward.py).

Constructor and `forward(inputs, task_name=None)` are those of LibMTL's architectures, and so are the names of
parameters, `get_share_params` and `zero_grad_share_params`: each class here can be handed to LibMTL's own
trainer. Legend: B batch, E experts, K number of a gate's experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from model.moe.autonomy import fuse, mix
from model.mtl.experts import BROKEN, SYMMETRIES, ExpertCounts, break_symmetry

EncoderClass = Callable[[], nn.Module]
Shared = tuple[Tensor, ...]


class Architecture(nn.Module):
    """Base class: heads, and the contract above.

    Args:
        task_name: names of the tasks, in the order of the losses.
        encoder_class: makes one encoder, image (B, 3, H, W) -> features (B, ...).
        decoders: one head per task.
        rep_grad: gradients with respect to the features instead of the shared parameters (LibMTL); for
            architectures with one representation for all tasks only.
        multi_input: every task has input of its own (LibMTL); `forward` is then called with a task's name.
        device: where LibMTL puts the model; kept for its weightings.
        img_size: channels, height and width of the input; for architectures with gates.
        num_experts: see `ExpertCounts.parse`.
        symmetry: `broken` moves experts that start equal (see model/mtl/experts.py), `published` leaves them.

    Raises:
        ValueError: heads that do not fit the tasks, an unknown symmetry, numbers of experts that do not fit.
    """

    def __init__(
        self,
        task_name: Sequence[str],
        encoder_class: EncoderClass,
        decoders: Mapping[str, nn.Module],
        rep_grad: bool = False,
        multi_input: bool = False,
        device: torch.device | str = "cpu",
        *,
        img_size: Sequence[int] | None = None,
        num_experts: Sequence[int] | None = None,
        symmetry: str = BROKEN,
    ) -> None:
        super().__init__()
        self.task_name, self.task_num = list(task_name), len(task_name)
        self.rep_grad, self.multi_input, self.device = rep_grad, multi_input, device
        if not self.task_name or set(self.task_name) != set(decoders):
            raise ValueError(f"heads {sorted(decoders)} for tasks {self.task_name}; give one head per task")
        if symmetry not in SYMMETRIES:
            raise ValueError(f"symmetry {symmetry!r}; expected one of {', '.join(SYMMETRIES)}")
        if rep_grad and not self.one_representation:
            raise ValueError(f"{type(self).__name__} has features per task; rep_grad must be False")
        self.symmetry = symmetry
        self.rep: Tensor | None = None  # LibMTL's weightings read these two where rep_grad is set
        self.rep_tasks: dict[str, Tensor] = {}
        self.build(encoder_class, img_size, num_experts)
        self.decoders = decoders if isinstance(decoders, nn.ModuleDict) else nn.ModuleDict(dict(decoders))

    one_representation = False  # whether all heads see the same features

    def build(
        self,
        encoder_class: EncoderClass,
        img_size: Sequence[int] | None,
        num_experts: Sequence[int] | None,
    ) -> None:
        """Make encoders and gates."""
        raise NotImplementedError

    def shared(self, inputs: Tensor) -> Shared:
        """What is computed once for all tasks; empty where there is nothing."""
        raise NotImplementedError

    def task_features(self, task: str, inputs: Tensor, shared: Shared) -> Tensor:
        """What enters the head of a task."""
        raise NotImplementedError

    def shared_modules(self) -> Sequence[nn.Module]:
        """Modules that several tasks train; weightings by gradients look at their parameters."""
        raise NotImplementedError

    def task_modules(self, task: str) -> Sequence[nn.Module]:
        """Modules that this task alone trains, in its own part."""
        return [self.decoders[task]]

    def task_output(self, task: str, inputs: Tensor, shared: Shared) -> Tensor:
        """Head output of one task."""
        features = self.task_features(task, inputs, shared)
        if self.rep_grad:
            self.rep = features
            features = self.rep_tasks[task] = features.detach().clone().requires_grad_()
        return self.decoders[task](features)

    def forward(self, inputs: Tensor, task_name: str | None = None) -> dict[str, Tensor]:
        """Task -> head output, of one task where it is named."""
        shared = self.shared(inputs)
        chosen = self.task_name if task_name is None else [task_name]
        return {task: self.task_output(task, inputs, shared) for task in chosen}

    def get_share_params(self) -> Iterator[nn.Parameter]:
        """Parameters that several tasks train."""
        for module in self.shared_modules():
            yield from module.parameters()

    def zero_grad_share_params(self) -> None:
        """Set their gradients to zero."""
        for parameter in self.get_share_params():
            if parameter.grad is not None:
                parameter.grad.zero_()

    def separate(self, experts: Sequence[nn.Module]) -> None:
        """Break the symmetry among experts that see the same tasks, unless the published way is asked for."""
        if self.symmetry == BROKEN:
            break_symmetry(experts)


class HPS(Architecture):
    """Hard parameter sharing: one encoder for all tasks."""

    one_representation = True

    def build(self, encoder_class: EncoderClass, img_size: object, num_experts: object) -> None:
        self.encoder = encoder_class()

    def shared(self, inputs: Tensor) -> Shared:
        return (self.encoder(inputs),)

    def task_features(self, task: str, inputs: Tensor, shared: Shared) -> Tensor:
        return shared[0]

    def shared_modules(self) -> Sequence[nn.Module]:
        return [self.encoder]


class STL(Architecture):
    """Single-task learning: every task has an encoder of its own; the baseline row."""

    def build(self, encoder_class: EncoderClass, img_size: object, num_experts: object) -> None:
        self.encoders = nn.ModuleDict({task: encoder_class() for task in self.task_name})

    def shared(self, inputs: Tensor) -> Shared:
        return ()

    def task_features(self, task: str, inputs: Tensor, shared: Shared) -> Tensor:
        return self.encoders[task](inputs)

    def task_modules(self, task: str) -> Sequence[nn.Module]:
        return [self.encoders[task], *super().task_modules(task)]

    def shared_modules(self) -> Sequence[nn.Module]:
        return []


class MultiExpert(Architecture):
    """Shared and per-task experts, each a full encoder; what a task sees of them is left to the subclass."""

    def build(
        self,
        encoder_class: EncoderClass,
        img_size: Sequence[int] | None,
        num_experts: Sequence[int] | None,
    ) -> None:
        self.counts = ExpertCounts.parse(num_experts, self.task_name)
        self.experts_shared = nn.ModuleList(encoder_class() for _ in range(self.counts.shared))
        self.separate(list(self.experts_shared))
        if any(self.counts.specific):
            self.experts_specific = nn.ModuleDict(
                {
                    task: nn.ModuleList(encoder_class() for _ in range(count))
                    for task, count in zip(self.task_name, self.counts.specific, strict=True)
                }
            )
            for experts in self.experts_specific.children():
                self.separate(list(experts.children()))

    def shared(self, inputs: Tensor) -> Shared:
        return tuple(expert(inputs) for expert in self.experts_shared)

    def expert_outputs(self, task: str, inputs: Tensor, shared: Shared) -> list[Tensor]:
        """Features of the experts that a task sees, shared ones first."""
        own = self.experts_specific[task].children() if any(self.counts.specific) else ()
        return [*shared, *(expert(inputs) for expert in own)]

    def task_modules(self, task: str) -> Sequence[nn.Module]:
        own = [self.experts_specific[task]] if any(self.counts.specific) else []
        return [*own, *super().task_modules(task)]

    def shared_modules(self) -> Sequence[nn.Module]:
        return [self.experts_shared]


class AOEMTL(MultiExpert):
    """Autonomy of experts: `z_t = sum_k (||y_k|| / (sum_m ||y_m|| + eps)) y_k` over the shared experts and
    the task's own; no gate, no top-k, no parameter but the experts' own (doi 10.5281/zenodo.17622521).
    """

    def task_features(self, task: str, inputs: Tensor, shared: Shared) -> Tensor:
        return fuse(self.expert_outputs(task, inputs, shared))[0]

    def fusion_weights(self, task: str, inputs: Tensor) -> Tensor:
        """Shares of the experts of a task, shared ones first. (B, E)"""
        return fuse(self.expert_outputs(task, inputs, self.shared(inputs)))[1]


class CGC(MultiExpert):
    """Customised gate control: per task a softmax gate on the flattened image mixes the shared experts and
    the task's own (Tang et al., RecSys 2020).
    """

    def build(
        self,
        encoder_class: EncoderClass,
        img_size: Sequence[int] | None,
        num_experts: Sequence[int] | None,
    ) -> None:
        super().build(encoder_class, img_size, num_experts)
        if img_size is None:
            raise ValueError(
                f"{type(self).__name__} has gates on the image; give img_size, such as 3 288 384"
            )
        inputs = prod(img_size)
        self.gate_specific = nn.ModuleDict(
            {
                task: gate(inputs, self.counts.shared + own)
                for task, own in zip(self.task_name, self.counts.specific, strict=True)
            }
        )

    def fusion_weights(self, task: str, inputs: Tensor) -> Tensor:
        """Gate of a task. (B, K)"""
        gated: nn.Sequential = self.gate_specific[task]  # type: ignore[assignment]
        return apply_gate(gated, inputs)

    def task_features(self, task: str, inputs: Tensor, shared: Shared) -> Tensor:
        return mix(self.expert_outputs(task, inputs, shared), self.fusion_weights(task, inputs))


class MMoE(CGC):
    """Multi-gate mixture of experts: shared experts, one gate per task (Ma et al., KDD 2018)."""

    def build(
        self,
        encoder_class: EncoderClass,
        img_size: Sequence[int] | None,
        num_experts: Sequence[int] | None,
    ) -> None:
        super().build(encoder_class, img_size, num_experts)
        if any(self.counts.specific):
            raise ValueError(f"num_experts {list(num_experts or ())}: MMoE has shared experts only; give one")


def gate(inputs: int, experts: int) -> nn.Sequential:
    """Linear layer and softmax over the experts of a task."""
    return nn.Sequential(nn.Linear(inputs, experts), nn.Softmax(dim=-1))


def apply_gate(gated: nn.Sequential, inputs: Tensor) -> Tensor:
    """Weights of a gate on flattened features. (B, ...) -> (B, K)

    Raises:
        ValueError: features of another size than the gate was made for.
    """
    flat, linear = inputs.flatten(1), gated[0]
    assert isinstance(linear, nn.Linear)
    if flat.shape[1] != linear.in_features:
        raise ValueError(
            f"a gate for {linear.in_features} numbers got {tuple(inputs.shape[1:])}, {flat.shape[1]} "
            "numbers; give the images' true size as img_size"
        )
    return gated(flat)
