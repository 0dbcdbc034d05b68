"""How much memory training will take, known before its first step.

The model runs once on the meta device, where tensors have sizes but no content; what autograd keeps for the
backward pass is counted.

    need = parameters + gradients + optimiser + shared activations + largest task's activations + work

Work is what comes and goes: the largest result of a layer and its gradient, both also in the layout that the
convolutions want; a task's output at the size of the image, its logarithm and the gradients of both; and what
the libraries keep for themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.mtl.architectures import Architecture
from train.mtl.optim import OptimConfig

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
CGROUP_USED = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")
LAYOUTS, OUTPUTS, LIBRARIES = 4, 4, 64 * 2**20  # copies of the largest result, of an output; bytes
STATES = {"adam": 2, "adamw": 2, "sgd": 1, "adagrad": 1, "rmsprop": 2}  # numbers kept per parameter


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a training step takes."""

    parameters: int  # with gradients and optimiser
    activations: int  # of the shared part and the largest task
    work: int  # what comes and goes

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.activations + self.work


@dataclass
class _Kept:
    """Bytes saved for backward, and the largest tensor."""

    bytes: int = 0
    largest: int = 0


@contextmanager
def _count(weights: Iterable[Tensor]) -> Iterator[_Kept]:
    """Count what autograd saves within the block, each storage once, weights not."""
    kept = _Kept()
    alive = {weight.untyped_storage()._cdata: weight.untyped_storage() for weight in weights}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in alive:
            alive[storage._cdata] = storage  # keeps the address from being used again
            kept.bytes += storage.nbytes()
            kept.largest = max(kept.largest, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        yield kept


def predict(
    model: Architecture,
    inputs: torch.Size | tuple[int, ...],
    optim: OptimConfig,
    half: bool = False,
) -> MemoryNeed:
    """Need of a training step with inputs of this shape, batch first.

    half: activations in 16 bits, which stand beside a copy of the weights in 16 bits.
    """
    ghost = copy.deepcopy(model).to("meta").train()
    size = sum(p.numel() * p.element_size() for p in ghost.parameters())
    weights = list(ghost.parameters())
    image = torch.empty(inputs, device="meta")
    with _count(weights) as common:
        shared = ghost.shared(image)
    tasks, outputs = [], [0]
    for task in ghost.task_name:
        with _count(weights) as kept:
            out = ghost.task_output(task, image, tuple(piece.detach().requires_grad_() for piece in shared))
        tasks.append(kept)
        if out.ndim == 4:
            outputs.append(OUTPUTS * 4 * out.shape[0] * out.shape[1] * image.shape[2] * image.shape[3])
    largest = max(tasks, key=lambda kept: kept.bytes)
    together = common.bytes + largest.bytes
    work = LAYOUTS * max(common.largest, largest.largest)
    return MemoryNeed(
        size * (2 + STATES[optim.optim]) + (size // 2 if half else 0),
        together // 2 if half else together,
        (work // 2 if half else work) + max(outputs) + LIBRARIES,
    )


def available(device: torch.device) -> int | None:
    """Free bytes on a device; None where that cannot be known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found = [_free_of_machine(), _free_of_group()]
    known = [value for value in found if value is not None]
    return min(known) if known else None


def check_memory(need: MemoryNeed, device: torch.device) -> str:
    """One line for the log. Raises ValueError if the need exceeds what is free."""
    free = available(device)
    line = f"memory: {gigabytes(need.total)} predicted for a step"
    if free is None:
        return line
    if need.total > free:
        raise ValueError(
            f"{line}, {gigabytes(free)} free on {device}; nothing was started. Use smaller batches "
            "(--train_bs), smaller images (--img_size), fewer experts (--num_experts) or --bf16, or "
            "--ignore_memory to try all the same"
        )
    return f"{line}, {gigabytes(free)} free on {device}"


def gigabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.2f} GiB"


def _free_of_machine() -> int | None:
    path = Path("/proc/meminfo")
    if not path.is_file():
        return None
    for line in path.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _free_of_group() -> int | None:
    """What a container's limit leaves."""
    for limit, used in zip(CGROUP_LIMITS, CGROUP_USED, strict=True):
        if Path(limit).is_file() and Path(used).is_file():
            text = Path(limit).read_text().strip()
            if text.isdigit() and int(text) < 2**60:
                return max(int(text) - int(Path(used).read_text()), 0)
    return None
