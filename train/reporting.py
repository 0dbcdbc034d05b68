"""Where a training run reports: JSON lines, TensorBoard, a progress bar. None of it changes the result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.files import append_line


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

    def __init__(self, reporting: Reporting, active: bool) -> None:
        """`active`: whether this process writes."""
        self._active = active
        self._lines = reporting.folder / "train_log.jsonl"
        self._board: Any = None
        if self._active:
            reporting.folder.mkdir(parents=True, exist_ok=True)
        if self._active and reporting.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(reporting.folder))

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
