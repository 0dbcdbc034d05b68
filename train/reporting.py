"""Where a training run reports: JSON lines, TensorBoard, a progress bar. None of it changes the result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from data.files import append_line, write_bytes_atomic


@dataclass(frozen=True)
class Reporting:
    """Where a run reports; none of it changes the result."""

    folder: Path = Path(".")  # train_log.jsonl and TensorBoard files; every cell has its own
    every: int = 1  # optimiser steps between log lines
    save_every: int = 100  # optimiser steps between checkpoints
    tensorboard: bool = False
    progress: bool = True
    line: int = 0  # of the progress bar, where several run side by side
    title: str = "training"

    def __post_init__(self) -> None:
        if min(self.every, self.save_every) < 1:
            raise ValueError(
                f"{self.save_every} steps between checkpoints, {self.every} between log lines; expected at "
                "least 1"
            )


class StepWriter:
    """Steps as JSON lines and, if asked for, as TensorBoard scalars; only the main process writes."""

    def __init__(self, reporting: Reporting, active: bool, done: int | None = None) -> None:
        """active: whether this process writes. done: the step that a run goes on from; what an earlier try
        wrote of later ones, which come again, is dropped.
        """
        self._active = active
        self._lines = reporting.folder / "train_log.jsonl"
        self._board: Any = None
        if self._active:
            reporting.folder.mkdir(parents=True, exist_ok=True)
            if done is not None:
                drop_later(self._lines, done)
        if self._active and reporting.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            purge = None if done is None else done + 1
            self._board = SummaryWriter(str(reporting.folder), purge_step=purge)

    def write(self, step: int, **values: float) -> None:
        """Report the values of one step."""
        if not self._active:
            return
        append_line(
            self._lines, json.dumps({"step": step, **{k: float(f"{v:.6g}") for k, v in values.items()}})
        )
        for name, value in values.items() if self._board else ():
            self._board.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._board:
            self._board.close()


def drop_later(path: Path, done: int) -> None:
    """Keep the lines of a log up to a step, in place; a torn or damaged one goes too."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    kept = [line for line in lines if step_of(line) <= done]
    if kept != lines:
        write_bytes_atomic(path, b"".join(kept))


def step_of(line: bytes) -> float:
    """The step that a line tells of; infinite where it tells of none."""
    try:
        return int(json.loads(line)["step"]) if line.endswith(b"\n") else inf
    except (ValueError, TypeError, KeyError):
        return inf
