"""What all stages share: bfloat16 modules with float32 masters, the optimiser with its schedule, contrastive
and cosine classifiers, progress lines.
"""

import math
import time
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def to_bfloat16(module: nn.Module) -> None:
    """Convert the parameters only: buffers such as the rotary frequencies need float32."""
    for parameter in module.parameters():
        parameter.data = parameter.data.bfloat16()


class MasterAdam:
    """AdamW in float32 for parameters of any dtype: bfloat16 ones are copies of float32 masters."""

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, decay: float) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for p in self.parameters]
        matrices = [m for m in self.masters if m.ndim >= 2]
        others = [m for m in self.masters if m.ndim < 2]
        groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients at hand, clipped to norm 1; the gradients are dropped."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter is not master:
                master.grad = None if parameter.grad is None else parameter.grad.float()
                parameter.grad = None
        nn.utils.clip_grad_norm_(self.masters, 1.0)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter is not master:
                parameter.copy_(master)

    def restore(self) -> None:
        """Put the float32 masters in the parameters' place."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.data = master.data


class Optimiser(MasterAdam):
    """With linear warm-up and cosine decay."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], rate: float, steps: int, decay: float = 0.02
    ) -> None:
        super().__init__(parameters, rate, decay)
        self.rate, self.steps, self.done = rate, steps, 0

    def step(self) -> None:
        warm = min(1.0, (self.done + 1) / max(1, min(100, self.steps // 10)))
        wave = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.done / self.steps))
        for group in self.adam.param_groups:
            group["lr"] = self.rate * warm * wave
        super().step()
        self.done += 1


class Proxies(nn.Module):
    """Metric learning by `s cos(W h, .)` with learned scale s: to a proxy of every class, and, faster at
    first, to the other members of the batch (supervised contrastive loss, P. Khosla et al., arXiv
    2004.11362).
    """

    def __init__(self, width: int, classes: int, inner: int = 128) -> None:
        super().__init__()
        self.project = nn.Linear(width, inner)
        self.proxies = nn.Parameter(torch.randn(classes, inner) * inner**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(math.log(16.0)))

    def embed(self, h: Tensor) -> Tensor:
        """(N, width) -> (N, inner) of length 1."""
        return F.normalize(self.project(h), dim=-1)

    def logits(self, y: Tensor) -> Tensor:
        """Embeddings (N, inner) -> (N, classes)."""
        return (y @ F.normalize(self.proxies, dim=-1).T) * self.log_scale.exp()

    def forward(self, h: Tensor) -> Tensor:
        """(N, width) -> (N, classes)."""
        return self.logits(self.embed(h.float()))


def contrast(y_NW: Tensor, labels_N: Tensor, scale: float = 12.0) -> Tensor:
    """Mean over anchors of the mean over their positives of `-log softmax`; anchors without positives are
    left out.
    """
    same = labels_N[:, None] == labels_N[None]
    self_mask = torch.eye(len(y_NW), dtype=torch.bool)
    logits = (y_NW @ y_NW.T * scale).masked_fill(self_mask, -1e4)
    positive = (same & ~self_mask).float()
    count = positive.sum(1)
    each = -(F.log_softmax(logits, 1) * positive).sum(1) / count.clamp(min=1)
    return each.sum() / (count > 0).sum().clamp(min=1)


class Progress:
    """Prints running means now and then."""

    def __init__(self, name: str, steps: int, every: int) -> None:
        self.name, self.steps, self.every = name, steps, every
        self.sums: dict[str, float] = {}
        self.count, self.start = 0, time.time()

    def add(self, step: int, values: dict[str, float]) -> None:
        """Count one step."""
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.count += 1
        if (step + 1) % self.every == 0 or step + 1 == self.steps:
            text = " ".join(f"{k} {v / self.count:.3f}" for k, v in self.sums.items())
            print(
                f"[{self.name}] {step + 1}/{self.steps} {text} ({time.time() - self.start:.0f} s)", flush=True
            )
            self.sums, self.count = {}, 0
