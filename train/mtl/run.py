"""One training run of a trainer: where it stands, and how it goes on.

Order, augmentation and dropout depend on seed, epoch and step only, so that a run that was interrupted ends
with the same numbers.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from data.files import read_json, write_json_atomic
from model.moe.files import atomic_write
from train.checkpoints import CheckpointFolder
from train.mtl.backward import StepResult
from train.mtl.batches import load, shuffled, to_device
from train.mtl.optim import Schedule, make_optimizer
from train.reporting import StepWriter

if TYPE_CHECKING:
    from train.mtl.trainer import Trainer

log = logging.getLogger(__name__)

ADVICE = "Choose another --save_path (of compare.py: --out)"
Validation = tuple[Dataset[Any], Sequence[int]]


class Run:
    """One call of `Trainer.train`: where it stands, and how it goes on."""

    def __init__(
        self,
        trainer: Trainer,
        train_set: Dataset[Any],
        epochs: int,
        train_indices: Sequence[int] | None,
        validation: Validation | None,
    ) -> None:
        if epochs < 1:
            raise ValueError(f"{epochs} epochs; expected at least 1")
        self.t, self.set, self.epochs, self.validation = trainer, train_set, epochs, validation
        self.indices = list(range(len(train_set))) if train_indices is None else list(train_indices)  # type: ignore[arg-type]
        self.accelerator, self.settings = trainer.accelerator, trainer.settings
        self.step, self.sums = 0, torch.zeros(len(trainer.tasks), dtype=torch.float64)
        optimizer = make_optimizer(self.settings.optim, trainer.model.parameters())
        self.schedules = [Schedule(self.settings.optim, optimizer, epochs)]
        self.optimizers: list[Any] = [self.accelerator.prepare(optimizer)]
        learned = list(trainer.weighting.parameters())
        if learned:  # apart: they live on the CPU and know no loss scaling
            self.optimizers.append(make_optimizer(self.settings.optim, learned))
            self.schedules.append(Schedule(self.settings.optim, self.optimizers[1], epochs))
        self.per_epoch = len(self._batches(0))
        identity = {**trainer.config, "epochs": epochs, "samples": len(self.indices)}
        self.checkpoint = CheckpointFolder(trainer.reporting.folder, identity, ADVICE)

    def _batches(self, epoch: int) -> list[list[int]]:
        size = self.settings.train_batch * self.accelerator.num_processes
        return shuffled(self.indices, size, self.settings.seed, epoch)

    def to_the_end(self) -> dict[str, Any]:
        """All epochs that are left."""
        t, main = self.t, self.accelerator.is_main_process
        total = self.epochs * self.per_epoch
        bar = tqdm(
            total=total,
            initial=self.step,
            desc=t.reporting.title,
            disable=not (t.reporting.progress and main),
            mininterval=1.0,
        )
        with contextlib.closing(bar), contextlib.closing(StepWriter(t.reporting, main, self.step)) as writer:
            while self.step < total:
                self._epoch(bar, writer)
        self.accelerator.wait_for_everyone()
        return min(t.history, key=lambda entry: entry["selection"])

    def _epoch(self, bar: Any, writer: StepWriter) -> None:
        """From where the run stands to the end of the epoch."""
        t, started = self.t, time.monotonic()
        epoch, first = divmod(self.step, self.per_epoch)
        t.weighting.begin_epoch([entry["train_losses"] for entry in t.history])
        if hasattr(self.set, "epoch"):
            self.set.epoch = epoch
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        mine = [batch[rank::world] for batch in self._batches(epoch)[first:]]
        t.model.train()
        for batch in load(self.set, mine, self.settings.workers):
            result = self._one_step(batch)
            self.step += 1
            self.sums += result.losses
            bar.update()
            if self.step % t.reporting.every == 0:
                names = list(t.tasks)
                losses = {f"loss_{n}": float(v) for n, v in zip(names, result.losses, strict=True)}
                weights = {f"weight_{n}": float(v) for n, v in zip(names, result.weights, strict=True)}
                writer.write(self.step, **losses, **weights, learning_rate=self._learning_rate())
            if self.step % t.reporting.save_every == 0 and self.step % self.per_epoch:
                self._save()
        self._end_epoch(epoch, writer, time.monotonic() - started)
        self._save()

    def _one_step(self, batch: Any) -> StepResult:
        t = self.t
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)  # dropout, random weightings
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        result = t.backward(*to_device(batch, self.accelerator.device))
        if not torch.isfinite(result.losses).all():
            raise ValueError(
                f"step {self.step + 1}: losses {dict(zip(t.tasks, result.losses.tolist(), strict=True))}; "
                f"the last checkpoint is kept in {t.reporting.folder}. Lower the learning rate (--lr) or use "
                "another precision"
            )
        for optimizer in self.optimizers:
            optimizer.step()
        return result

    def _end_epoch(self, epoch: int, writer: StepWriter, seconds: float) -> None:
        """Validate, log, keep the best, move the learning rate."""
        t = self.t
        self._average_buffers()
        entry: dict[str, Any] = {
            "epoch": epoch + 1,
            "train_losses": (self.sums / self.per_epoch).tolist(),
            "learning_rate": self._learning_rate(),
            "seconds": round(seconds, 2),
        }
        self.sums.zero_()
        if self.validation is None:
            entry["selection"] = float(-epoch)
        else:
            found = t.test(*self.validation)
            first = t.history[0]["val_losses"] if t.history else found.losses
            entry |= {"val_losses": found.losses, "val_scores": found.scores}
            entry["selection"] = relative_loss(found.losses, first)
        best = not t.history or entry["selection"] < min(e["selection"] for e in t.history)
        t.history.append(entry)
        numbers = {f"train_{n}": v for n, v in zip(t.tasks, entry["train_losses"], strict=True)}
        numbers |= {f"val_{n}": v for n, v in entry.get("val_losses", {}).items()}
        writer.write(self.step, epoch=epoch + 1, selection=entry["selection"], **numbers)
        log.info("epoch %d: %s%s", epoch + 1, format_losses(numbers), ", best so far" if best else "")
        if self.accelerator.is_main_process:
            write_json_atomic(t.reporting.folder / "history.json", t.history)
            if best:
                with atomic_write(t.best_path) as file:
                    torch.save({"config": t.config, "entry": entry, "model": t.model.state_dict()}, file)
        for schedule in self.schedules:
            schedule.step(entry["selection"])

    def _average_buffers(self) -> None:
        """Running statistics of all processes become one."""
        if self.accelerator.num_processes > 1:
            for buffer in self.t.model.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.accelerator.reduce(buffer, "mean"))

    def _learning_rate(self) -> float:
        return float(self.optimizers[0].param_groups[0]["lr"])

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            self.checkpoint.save(
                {
                    "step": self.step,
                    "processes": self.accelerator.num_processes,
                    "sums": self.sums,
                    "history": self.t.history,
                    "model": self.t.model.state_dict(),
                    "weighting": self.t.weighting.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                    "schedules": [schedule.state_dict() for schedule in self.schedules],
                    "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
                }
            )
        self.accelerator.wait_for_everyone()

    def finished(self) -> bool:
        """Whether all epochs are done; nothing is loaded or written. Raises ValueError for a folder of a run
        with other settings.
        """
        there, history = self.checkpoint.check(), self.checkpoint.folder / "history.json"
        return there and history.is_file() and len(read_json(history)) >= self.epochs

    def resume(self) -> int:
        """Load the checkpoint if there is one; returns the number of steps already done."""
        if self.accelerator.is_main_process:
            self.checkpoint.claim()
        self.accelerator.wait_for_everyone()
        if not self.checkpoint.claim():
            return 0
        state = self.checkpoint.load()
        if state["processes"] != self.accelerator.num_processes:
            raise ValueError(
                f"{self.checkpoint.folder}: saved with {state['processes']} processes, resumed with "
                f"{self.accelerator.num_processes}; use the same number or another folder"
            )
        self.step, self.sums, self.t.history = state["step"], state["sums"], state["history"]
        try:
            self.t.model.load_state_dict(state["model"])
        except RuntimeError as error:
            first = " ".join(str(error).split("\n\t")[:2])
            raise ValueError(
                f"{self.checkpoint.folder}: the weights of its state.pt do not fit this model ({first}); use "
                "the same encoder and heads, or another folder"
            ) from error
        self.t.weighting.load_state_dict(state["weighting"])
        for part, saved in zip(self.optimizers, state["optimizers"], strict=True):
            part.load_state_dict(saved)
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)
        if state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        log.info(
            "going on at step %d of %d from %s",
            self.step,
            self.epochs * self.per_epoch,
            self.checkpoint.folder,
        )
        return self.step


def relative_loss(losses: Mapping[str, float], first: Mapping[str, float]) -> float:
    """Mean over the tasks of the loss over that of the first epoch; what chooses the best epoch."""
    shares = [value / first[task] if first[task] > 0 else 1.0 for task, value in losses.items()]
    mean = sum(shares) / len(shares)
    return mean if math.isfinite(mean) else float("inf")


def format_losses(numbers: Mapping[str, float]) -> str:
    """name value, name value."""
    return ", ".join(f"{name} {value:.4f}" for name, value in numbers.items())
