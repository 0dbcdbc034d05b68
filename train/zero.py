"""DeepSpeed's engine around one training: ZeRO cuts tensors over the processes while it runs.

Stage 2 cuts optimiser state and gradients; stage 3 cuts all parameters too, those of the frozen backbone
included, and puts each together again where a layer needs it. Before and after a training (anchors, starting
points, saved experts) everything is whole. All calls are collective: every process makes them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.files import sha256_file
from model.moe.experts import ExpertBank


class ZeroEngine:
    """An engine as the training loop uses it.

    The loop itself says which micro-batch is the last of a step and when the step is taken, so that steps
    may have any number of micro-batches.
    """

    def __init__(self, engine: Any, module: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        """`engine` wraps `module`, of which `parameters` learn."""
        self.engine, self.module, self.parameters = engine, module, list(parameters)

    @property
    def stage(self) -> int:
        """The ZeRO stage, 0 to 3."""
        return int(self.engine.zero_optimization_stage())

    def watch(self, bank: ExpertBank, task_id: int) -> None:
        """Under stage 3 have an expert's tensors put together with the layers that use them: they are held
        elsewhere, where the engine would not look."""
        if self.stage < 3:
            return
        from deepspeed.runtime.zero.partition_parameters import register_external_parameter

        for layer_key, layer in bank.layers.items():
            for key, parameter in bank.parameters_of(task_id).items():
                if key.startswith(f"{layer_key}."):
                    register_external_parameter(layer, parameter)

    def last_of_step(self, last: bool) -> None:
        """Say, before its forward, whether a micro-batch is the last one of its step."""
        self.engine.set_gradient_accumulation_boundary(last)

    def backward(self, loss: Tensor) -> None:
        """Backward of the loss; gradients are averaged over the processes."""
        self.engine.backward(loss, scale_wrt_gas=False)

    def step(self) -> float:
        """Clip, take the optimiser's step, forget the gradients; returns the norm before clipping."""
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return float("nan") if norm is None else float(norm)

    def whole(self) -> list[Tensor]:
        """What has been learned: each parameter whole, in the optimiser's float32, on the CPU."""
        from deepspeed.utils import safe_get_full_fp32_param

        values = []
        for parameter in self.parameters:
            value = safe_get_full_fp32_param(parameter)
            values.append((parameter if value is None else value).detach().to("cpu", copy=True))
        return values

    def save(self, folder: Path, step: int) -> None:
        """Write every process's share of the state after `step`, beside those of earlier steps."""
        self.engine.save_checkpoint(
            str(folder), tag=_tag(step), save_latest=False, exclude_frozen_parameters=True
        )

    def load(self, folder: Path, step: int) -> None:
        """Go on from the state after `step`. Raises ValueError if it is not there."""
        found, _ = self.engine.load_checkpoint(
            str(folder), tag=_tag(step), load_module_strict=False, load_lr_scheduler_states=False
        )
        if found is None:
            raise ValueError(
                f"{folder / _tag(step)}: DeepSpeed's part of the checkpoint is missing or damaged; delete "
                f"{folder.parent} to train this task anew"
            )

    def release(self) -> None:
        """Take the engine off again: every parameter whole where it was, what was learned in float32."""
        learned = dict(zip(map(id, self.parameters), self.whole(), strict=True))
        self.engine.destroy()
        made: dict[int, nn.Parameter] = {}  # parameters may be shared by modules
        for module in self.module.modules():
            for name, old in list(module._parameters.items()):
                if old is None:
                    continue
                if id(old) not in made:
                    made[id(old)] = _plain(old, learned.get(id(old)), self.engine.device)
                module._parameters[name] = made[id(old)]
            module._parameters = dict(module._parameters)  # the engine's own kind of dictionary goes
            for left in ("_original_parameters", "_external_params", "ds_external_parameters"):
                module.__dict__.pop(left, None)


def share_sums(folder: Path, step: int) -> dict[str, str]:
    """SHA-256 of all files of the state after `step`, by their path in its folder; DeepSpeed keeps none."""
    top = folder / _tag(step)
    files = [path for path in sorted(top.rglob("*")) if path.is_file()]
    return {str(path.relative_to(top)): sha256_file(path) for path in files}


def require_shares(folder: Path, step: int, sums: Mapping[str, str]) -> None:
    """Raise ValueError naming the first file of the state after `step` that is not as `share_sums` said."""
    for name, digest in sums.items():
        path = folder / _tag(step) / name
        if not path.is_file() or sha256_file(path) != digest:
            fault = "a byte of it has changed" if path.is_file() else "no such file"
            raise ValueError(
                f"{path}: damaged checkpoint ({fault}); delete {folder.parent} to train this task anew"
            )


def forget_other_steps(folder: Path, step: int) -> None:
    """Delete the states of all steps but one; for the main process, after the record names that step."""
    for other in folder.glob("step*"):
        if other.name != _tag(step):
            shutil.rmtree(other, ignore_errors=True)


def use_gloo_alone() -> None:
    """Between CPUs let DeepSpeed send with gloo only: its own transport has to be compiled (minutes) and sums
    in another order. To be called before the process group is made."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__ = {}


def _tag(step: int) -> str:
    return f"step{step}"


def _plain(old: nn.Parameter, learned: Tensor | None, device: torch.device) -> nn.Parameter:
    """A parameter without anything of the engine's; `learned` are its values if it was trained."""
    if learned is not None:
        return nn.Parameter(learned.to(device), requires_grad=False)
    if not hasattr(old, "ds_id"):
        return old
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters

    with GatheredParameters([old]), torch.no_grad():
        return nn.Parameter(old.detach().to(device, copy=True), requires_grad=False)
