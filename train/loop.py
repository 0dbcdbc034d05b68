"""The training loop: a few tensors on a frozen backbone, resumable at every step, on any number of processes.

`Training` is the loop; what learns and from which loss is its subclass's: an expert in expert_training.py,
the bridge between towers and LLM in alignment.py.

The loss of an optimiser step is the negative log-likelihood per answer token over the whole step, whatever
the number of micro-batches and processes: `sum over answer tokens of -log p / number of answer tokens`, with
label smoothing s `-(1 - s) log p - s mean log p` over the vocabulary in place of `-log p`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm
from transformers import get_scheduler

from data.samples import Sample
from train.checkpoints import CheckpointFolder
from train.config import TrainConfig
from train.plan import count_steps, epoch_steps, micro_batches
from train.reporting import Reporting, StepWriter
from train.zero import ZeroEngine, forget_other_steps, require_shares, share_sums

log = logging.getLogger(__name__)


class Training(ABC):
    """Training of some tensors; `run` goes from the last checkpoint to the end."""

    def __init__(
        self,
        module: nn.Module,
        parameters: Sequence[nn.Parameter],
        samples: Sequence[Sample],
        lengths: Sequence[int],
        answer_tokens: Sequence[int],
        config: TrainConfig,
        accelerator: Accelerator,
        checkpoint: CheckpointFolder,
        reporting: Reporting,
    ) -> None:
        """`module` is wrapped for distributed training; `parameters` of it learn. Per sample: tokens with
        media and answer, and those that the loss is computed on."""
        self.config, self.samples = config, samples
        self.accelerator, self.checkpoint, self.reporting = accelerator, checkpoint, reporting
        self.lengths, self.answer_tokens, self.parameters = lengths, answer_tokens, list(parameters)
        self.step_size = config.per_device_batch * config.accumulation * accelerator.num_processes
        self.steps = count_steps(len(samples), self.step_size, config.epochs)
        self._loss = float("nan")  # of the latest step
        self._check_lengths()
        optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        schedule = get_scheduler(
            config.schedule,
            optimizer,
            num_warmup_steps=math.ceil(config.warmup_ratio * self.steps),
            num_training_steps=self.steps,
        )
        self.wrapped, self.optimizer = accelerator.prepare(module, optimizer)
        self.schedule = schedule
        self.zero: ZeroEngine | None = None  # DeepSpeed's engine, if it drives this training
        if accelerator.distributed_type.value == "DEEPSPEED":
            self.zero = ZeroEngine(self.wrapped, module, self.parameters)

    @abstractmethod
    def _backward(self, piece: Sequence[int], weight: float, place: tuple[int, int]) -> Tensor:
        """Forward and backward of `weight` times the samples' summed loss; returns that sum, detached.

        place: step, and number of the micro-batch in it over all processes; what is random depends on it.
        """

    @abstractmethod
    def _state(self) -> dict[str, Tensor]:
        """What has been learned, for the checkpoint."""

    @abstractmethod
    def _load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what has been learned."""

    def _check_lengths(self) -> None:
        for sample, length in zip(self.samples, self.lengths, strict=True):
            if length > self.config.max_length:
                raise ValueError(
                    f"{sample.source}, index {sample.index}, id {sample.id}: media and text take "
                    f"{length} tokens, more than --model_max_length {self.config.max_length}; shorten the "
                    "text, use fewer media or raise the limit"
                )

    def run(self) -> dict[str, Any]:
        """Train to the end; returns {"steps", "final_loss", "seconds"}. Raises ValueError on a loss that is
        not finite."""
        started, first = time.monotonic(), self._resume()
        bar = tqdm(
            total=self.steps,
            initial=first,
            desc=self.reporting.title,
            disable=not (self.reporting.progress and self.accelerator.is_main_process),
            mininterval=1.0,
            position=self.reporting.line,
        )
        with (
            contextlib.closing(bar),
            contextlib.closing(StepWriter(self.reporting, self.accelerator.is_main_process)) as writer,
        ):
            for step in range(first, self.steps):
                self._loss, norm = self._step(step)
                bar.update()
                if (step + 1) % self.reporting.every == 0 or step + 1 == self.steps:
                    bar.set_postfix(loss=f"{self._loss:.3f}", refresh=False)
                    writer.write(
                        step + 1, loss=self._loss, grad_norm=norm, learning_rate=self._learning_rate()
                    )
                if (step + 1) % self.reporting.save_every == 0 or step + 1 == self.steps:
                    self._save(step + 1)
        self._release()
        seconds = round(time.monotonic() - started, 2)
        return {"steps": self.steps, "final_loss": self._loss, "seconds": seconds}

    def _step(self, step: int) -> tuple[float, float]:
        """One optimiser step; returns the loss per answer token over all processes and the gradient norm."""
        config, world, rank = self.config, self.accelerator.num_processes, self.accelerator.process_index
        per_epoch = count_steps(len(self.samples), self.step_size, 1)
        epoch, place = divmod(step, per_epoch)
        chosen = epoch_steps(self.lengths, self.step_size, config.seed, epoch)[place]
        tokens = sum(self.answer_tokens[index] for index in chosen)
        pieces = micro_batches(chosen, config.per_device_batch, rank, world)
        total = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        for turn, piece in enumerate(pieces):
            weight = world / tokens if piece else 0.0  # gradients are averaged over the processes
            with self._part_of_step(last=turn + 1 == len(pieces)):
                loss = self._backward(piece or chosen[:1], weight, (step, turn * world + rank))
            total += loss.double() if piece else 0.0
        mean = float(self.accelerator.reduce(total, reduction="sum")) / tokens
        self._require_finite("loss", mean, step, chosen)
        norm = self.zero.step() if self.zero else self._update(step, chosen)
        self.schedule.step()
        return mean, norm

    def _part_of_step(self, last: bool) -> AbstractContextManager[None]:
        """Around a micro-batch's forward and backward; the last one of a step exchanges gradients."""
        if self.zero:
            self.zero.last_of_step(last)
            return contextlib.nullcontext()
        return contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped)

    def _differentiate(self, loss: Tensor) -> None:
        """Backward of a weighted loss, on whatever engine."""
        if self.zero:
            self.zero.backward(loss)
        else:
            self.accelerator.backward(loss)

    def _require_finite(self, what: str, value: float, step: int, chosen: Sequence[int]) -> None:
        """Stop before a value that is not finite reaches the weights, and name the samples it came from."""
        if math.isfinite(value):
            return
        ids = ", ".join(self.samples[index].id for index in chosen)
        raise ValueError(
            f"step {step + 1}: the {what} is {value}; samples of this step: {ids}. The last checkpoint is "
            f"kept in {self.checkpoint.folder}. Lower the learning rate or use another precision"
        )

    def _update(self, step: int, chosen: Sequence[int]) -> float:
        """Clip the gradient by its global norm and take the step; returns the norm before clipping."""
        limit = self.config.max_grad_norm or float("inf")
        clipped = self.accelerator.clip_grad_norm_(self.parameters, limit)
        norm = float(clipped) if clipped is not None else float("nan")
        if self.accelerator.scaler is None:  # which skips a step whose gradient overflows
            self._require_finite("norm of the gradient", norm, step, chosen)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def _learning_rate(self) -> float:
        return float(self.schedule.get_last_lr()[0])

    def _resume(self) -> int:
        """Load the checkpoint if there is one; returns the number of steps already done."""
        if self.accelerator.is_main_process:  # one process writes the claim, then all read it
            self.checkpoint.claim()
        self.accelerator.wait_for_everyone()
        if not self.checkpoint.claim():
            return 0
        state = self.checkpoint.load()
        if "learned" not in state:
            raise ValueError(
                f"{self.checkpoint.folder}: the checkpoint is of an older version of this code; delete the "
                "folder to begin this task anew (nothing finished is lost)"
            )
        saved = state["processes"], state.get("zero_stage")
        here = self.accelerator.num_processes, self._stage()
        if saved != here:
            raise ValueError(
                f"{self.checkpoint.folder}: saved with {_launch(*saved)}, resumed with {_launch(*here)}; "
                "start it as before, or delete the folder to begin this task anew"
            )
        if self.zero:
            shares = self.checkpoint.folder / "deepspeed"
            require_shares(shares, state["step"], state.get("zero_sums", {}))  # older files lack them
            self.zero.load(shares, state["step"])
        else:
            self._load_state(state["learned"])
            self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self._loss = state.get("loss", self._loss)  # of a run with no step left; older files lack it
        log.info("resuming at step %d of %d from %s", state["step"], self.steps, self.checkpoint.folder)
        return int(state["step"])

    def _save(self, step: int) -> None:
        """Write the checkpoint; every process takes part, the main one writes."""
        main, shares = self.accelerator.is_main_process, self.checkpoint.folder / "deepspeed"
        learned = self._state() if main or self.zero else {}  # ZeRO puts it together from all processes
        if self.zero:
            self.zero.save(shares, step)
            self.accelerator.wait_for_everyone()  # all shares are there before the record names them
        if main:
            self.checkpoint.save(
                {
                    "step": step,
                    "loss": self._loss,
                    "processes": self.accelerator.num_processes,
                    "zero_stage": self._stage(),
                    "zero_sums": share_sums(shares, step) if self.zero else {},
                    "learned": learned,
                    "optimizer": None if self.zero else self.optimizer.state_dict(),
                    "schedule": self.schedule.state_dict(),
                }
            )
            forget_other_steps(shares, step)
        self.accelerator.wait_for_everyone()

    def _stage(self) -> int | None:
        """The ZeRO stage, None without DeepSpeed."""
        return self.zero.stage if self.zero else None

    def _release(self) -> None:
        """Drop the wrappers and gradients, so that the next task starts from a clean model."""
        if self.zero:
            self.zero.release()
        self.accelerator.free_memory()
        for parameter in self.parameters:
            parameter.requires_grad_(False)
            parameter.grad = None


def _launch(processes: int, stage: int | None) -> str:
    """How a run was started, for messages."""
    return f"{processes} processes" + ("" if stage is None else f" under ZeRO-{stage}")
