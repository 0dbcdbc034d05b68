"""One step's gradients, forward and backward task by task.

What is computed once for all tasks is cut off: a task's backward pass ends at the cut and frees the task's
activations before the next task starts; the cut's gradients then go through the shared part in one pass. The
result is the gradient of `sum_t w_t L_t`, as if all had been one graph; memory holds the shared part and one
task.

    known weights      every task's loss is scaled, gradients add up where they belong
    weights by losses  every task's gradients are kept apart until all losses are there, then combined
    or gradients       (with their inner products over the shared parameters, summed over processes)

Legend: T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from model.mtl.architectures import Architecture, Shared
from train.mtl.tasks import MultiTask
from train.mtl.weightings import Coefficients, Weighting

Gradients = dict[nn.Parameter, Tensor]


@dataclass(frozen=True)
class StepResult:
    """Losses and the coefficients of the shared gradients, (T,) each, on the CPU."""

    losses: Tensor
    weights: Tensor


class TaskwiseBackward:
    """Leaves the gradient of one step in the parameters of a model and of its weighting."""

    def __init__(
        self,
        model: Architecture,
        weighting: Weighting,
        tasks: Mapping[str, MultiTask],
        accelerator: Accelerator,
    ) -> None:
        self.model, self.weighting, self.tasks, self.accelerator = model, weighting, tasks, accelerator
        self.shared_parameters = list(dict.fromkeys(model.get_share_params()))

    def __call__(self, inputs: Tensor, targets: Mapping[str, Tensor]) -> StepResult:
        """Gradients must be None before; afterwards they are the step's, the same on all processes."""
        scale = self._loss_scale()
        known = self.weighting.ahead()
        with self.accelerator.autocast():
            shared = self.model.shared(inputs)
        if known is not None:
            losses = self._known(inputs, targets, shared, [scale * w for w in known.tolist()])
            losses = self._mean(losses)
            weights = self.weighting.coefficients(losses, None).shared
            self._average([p for p in self.model.parameters() if p.grad is not None])
        else:
            losses, weights = self._apart(inputs, targets, shared, scale)
        return StepResult(losses, weights)

    def _known(
        self,
        inputs: Tensor,
        targets: Mapping[str, Tensor],
        shared: Shared,
        weights: Sequence[float],
    ) -> Tensor:
        cut = cut_off(shared)
        losses = []
        with Room(self.accelerator.device.type == "cpu") as room:
            for task, weight in zip(self.model.task_name, weights, strict=True):
                room.make(self.model.task_modules(task))
                loss = self._loss(task, inputs, targets, cut)
                (weight * loss).backward()
                losses.append(loss.detach())
            room.make(self.model.shared_modules())
            pass_on(shared, [piece.grad for piece in cut])
        return torch.stack(losses)

    def _apart(
        self,
        inputs: Tensor,
        targets: Mapping[str, Tensor],
        shared: Shared,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        """Every task's gradients by themselves, then their combination."""
        losses: list[Tensor] = []

        def one(task: str, cut: Shared) -> None:
            loss = self._loss(task, inputs, targets, cut)
            (scale * loss).backward()
            losses.append(loss.detach())

        shared_rows, own_rows = keep_apart(self.model, self.shared_parameters, shared, one)
        for row, own in zip(shared_rows, own_rows, strict=True):
            self._average_tensors([*row.values(), *(p.grad for p in own if p.grad is not None)])
        mean = self._mean(torch.stack(losses))
        gramian = inner_products(shared_rows) / scale**2 if self.weighting.needs_gramian else None
        if self.accelerator.scaler and gramian is not None and not torch.isfinite(gramian).all():
            ones = torch.ones_like(mean)  # fp16 overflowed: the optimiser will leave this step out
            coefficients = Coefficients(ones, ones)
        else:
            coefficients = self.weighting.coefficients(mean, gramian)
        combine(shared_rows, coefficients.shared.tolist())
        for own, weight in zip(own_rows, coefficients.own.tolist(), strict=True):
            for parameter in own:
                assert parameter.grad is not None
                parameter.grad *= weight
        return mean, coefficients.shared

    def _loss(self, task: str, inputs: Tensor, targets: Mapping[str, Tensor], shared: Shared) -> Tensor:
        with self.accelerator.autocast():
            output = self.model.task_output(task, inputs, shared)
        rule, target = self.tasks[task], targets[task]
        return rule.loss(rule.prepare(output, target), target)

    def _loss_scale(self) -> float:
        """Factor that keeps fp16 gradients from vanishing; the optimiser divides it out again."""
        scaler = self.accelerator.scaler
        return float(scaler.scale(torch.ones((), device=self.accelerator.device))) if scaler else 1.0

    def _mean(self, losses: Tensor) -> Tensor:
        return self.accelerator.reduce(losses.float(), "mean").cpu()

    def _average(self, parameters: Sequence[nn.Parameter]) -> None:
        self._average_tensors([p.grad for p in parameters if p.grad is not None])

    def _average_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Mean over the processes, in place, in one message."""
        if self.accelerator.num_processes == 1 or not tensors:
            return
        flat = self.accelerator.reduce(torch.cat([tensor.flatten() for tensor in tensors]), "mean")
        for tensor, piece in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(piece.view_as(tensor))


class Room:
    """Gradients that stand ready before the maps of a pass, on a CPU: made among these, and staying when they
    go, gradients would leave the C library's heap in pieces, a third of it unused.

    What no pass has come by when the block ends has no gradient, as ever.
    """

    def __init__(self, wanted: bool) -> None:
        self._wanted, self._hooks = wanted, ExitStack()
        self._waiting: set[nn.Parameter] = set()

    def make(self, modules: Iterable[nn.Module]) -> None:
        """For the parameters of modules that have none yet."""
        for parameter in dict.fromkeys(p for module in modules for p in module.parameters()):
            if self._wanted and parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
                self._waiting.add(parameter)
                hook = parameter.register_post_accumulate_grad_hook(self._waiting.discard)
                self._hooks.callback(hook.remove)

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *exception: object) -> None:
        self._hooks.close()
        for parameter in self._waiting:
            parameter.grad = None


def cut_off(shared: Shared) -> Shared:
    """The shared part's results as new leaves."""
    return tuple(piece.detach().requires_grad_() for piece in shared)


def pass_on(shared: Shared, gradients: Sequence[Tensor | None], retain: bool = False) -> None:
    """Backward through the shared part from the cut; what no task used has no gradient."""
    pairs = zip(shared, gradients, strict=True)
    used = [(piece, g) for piece, g in pairs if g is not None and piece.requires_grad]
    if used:
        torch.autograd.backward([p for p, _ in used], [g for _, g in used], retain_graph=retain)


def take(parameters: Sequence[nn.Parameter]) -> Gradients:
    """Move the gradients out of parameters."""
    taken = {parameter: parameter.grad for parameter in parameters if parameter.grad is not None}
    for parameter in taken:
        parameter.grad = None
    return taken


def add(row: Gradients, more: Gradients) -> None:
    """Add gradients to others, in place."""
    for parameter, gradient in more.items():
        row[parameter] = row[parameter] + gradient if parameter in row else gradient


def keeps_apart(weighting: Weighting) -> bool:
    """Whether a step keeps every task's gradients by themselves until all losses are there."""
    return type(weighting).ahead is Weighting.ahead


def keep_apart(
    model: Architecture,
    parameters: Sequence[nn.Parameter],
    shared: Shared,
    one: Callable[[str, Shared], None],
) -> tuple[list[Gradients], list[list[nn.Parameter]]]:
    """Every task's gradients of the shared parameters, and which parameters are its own; their gradients stay
    in them.

    parameters: the shared ones. one: forward and backward of a task from the cut.
    """
    everything, taken = list(model.parameters()), set(parameters)
    rows: list[Gradients] = []
    owns: list[list[nn.Parameter]] = []
    cuts = []
    for task in model.task_name:
        cut = cut_off(shared)
        one(task, cut)
        cuts.append([piece.grad for piece in cut])
        rows.append(take(parameters))
        own = [p for p in everything if p.grad is not None and p not in taken]
        taken.update(own)
        owns.append(own)
    if shared:
        for number, gradients in enumerate(cuts):
            pass_on(shared, gradients, retain=number + 1 < len(cuts))
            add(rows[number], take(parameters))
    return rows, owns


def combine(rows: Sequence[Gradients], weights: Sequence[float]) -> None:
    """Leave the weighted sum of the tasks' gradients in the parameters."""
    for row, weight in zip(rows, weights, strict=True):
        for parameter, gradient in row.items():
            part = gradient * weight
            parameter.grad = part if parameter.grad is None else parameter.grad + part


def inner_products(rows: Sequence[Gradients]) -> Tensor:
    """Inner products of the tasks' gradients, in float64 on the CPU. (T, T)"""
    table = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for i, row in enumerate(rows):
        for j in range(i, len(rows)):
            both = [p for p in row if p in rows[j]]
            total = sum(
                (torch.sum(row[p].double() * rows[j][p].double()).cpu() for p in both), torch.tensor(0.0)
            )
            table[i, j] = table[j, i] = total
    return table
