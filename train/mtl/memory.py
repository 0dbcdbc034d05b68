"""How much memory training will take, known before its first step.

Forward and backward run once on the meta device, where tensors have sizes but no content, task by task as in
train/mtl/backward.py, and as the weighting wants it: one that is not known before the losses keeps every
task's gradients of the shared part. The bytes of all tensors that are alive are followed.

    need = parameters and optimiser + the most that is alive of activations and gradients + work

Work is what stands beside: the largest result of a layer in the layouts that the convolutions want, a task's
output at the size of the image, its logarithm and the gradients of both, and what the libraries keep for
themselves.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.mtl.architectures import Architecture, Shared
from train.mtl.backward import combine, cut_off, keep_apart, keeps_apart, pass_on
from train.mtl.optim import OptimConfig
from train.mtl.weightings import Weighting

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
CGROUP_USED = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")
LAYOUTS, OUTPUTS, LIBRARIES = 4, 4, 64 * 2**20  # copies of the largest result, of an output; bytes
STATES = {"adam": 2, "adamw": 2, "sgd": 1, "adagrad": 1, "rmsprop": 2}  # numbers kept per parameter


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a training step takes."""

    parameters: int  # with optimiser
    step: int  # activations and gradients, at the moment when they are most
    work: int  # what stands beside

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.step + self.work


class LiveBytes(TorchDispatchMode):
    """Follows the bytes of tensors that operations make within the block, each storage once.

    before: tensors that are there already and do not count.
    """

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.most = self.largest = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in before}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._sizes:
            return
        self._sizes[key] = size
        self.now += size
        self.most, self.largest = max(self.most, self.now), max(self.largest, size)
        weakref.finalize(storage, self._gone, key).atexit = False

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def predict(
    model: Architecture,
    inputs: torch.Size | tuple[int, ...],
    optim: OptimConfig,
    half: bool = False,
    weighting: Weighting | None = None,
) -> MemoryNeed:
    """Need of a training step with inputs of this shape, batch first.

    half: activations in 16 bits; beside the weights stands a copy in 16 bits. weighting: equal weights
    without.
    """
    ghost = copy.deepcopy(model).to("meta").train()
    size = sum(p.numel() * p.element_size() for p in ghost.parameters())
    parameters = size * (1 + STATES[optim.optim])
    common = list(dict.fromkeys(ghost.get_share_params()))
    apart = weighting is not None and keeps_apart(weighting)
    if half:
        if apart:  # the other half of each task's
            parameters += len(ghost.task_name) * sum(p.numel() * p.element_size() for p in common) // 2
        ghost.bfloat16()
        parameters += size  # the copy, and the other half of each gradient
    image = torch.empty(inputs, device="meta", dtype=next(ghost.parameters()).dtype)
    outputs = 0

    def one(task: str, cut: Shared) -> None:
        nonlocal outputs
        out = ghost.task_output(task, image, cut)
        out.sum().backward()
        if out.ndim == 4:
            outputs = max(outputs, 4 * out.shape[0] * out.shape[1] * image.shape[2] * image.shape[3])

    with LiveBytes([*ghost.parameters(), *ghost.buffers(), image]) as live:
        shared = ghost.shared(image)
        if apart:
            rows, _ = keep_apart(ghost, common, shared, one)
            combine(rows, [1.0] * len(rows))
        else:
            cut = cut_off(shared)
            for task in ghost.task_name:
                one(task, cut)
            pass_on(shared, [piece.grad for piece in cut])
    return MemoryNeed(parameters, live.most, LAYOUTS * live.largest + OUTPUTS * outputs + LIBRARIES)


def available(device: torch.device) -> int | None:
    """Free bytes on a device; None where that cannot be known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found = [_free_of_machine(), _free_of_group()]
    known = [value for value in found if value is not None]
    return min(known) if known else None


def check_memory(need: MemoryNeed, device: torch.device, processes: int = 1) -> str:
    """One line for the log. Raises ValueError if the need exceeds what is free.

    processes: of this run on this host; on a CPU they share the memory.
    """
    free = available(device)
    sharing = processes if device.type == "cpu" else 1
    times = f"{sharing} times " if sharing > 1 else ""
    line = f"memory: {times}{gigabytes(need.total)} predicted for a step"
    if free is None:
        return line
    if sharing * need.total > free:
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
