"""Training checkpoints: what an interrupted run needs to go on, bit for bit.

One folder per task holds `identity.json` (what the run is) and `state.pt` (expert, optimiser, schedule,
step). A folder of another run is refused. Both files are written atomically; `state.pt` holds tensors and
plain values only.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from data.run_record import differing_keys, read_identity, write_record
from model.moe.files import atomic_write
from model.moe.pt_files import load_pt

REPLACE = "Add --overwrite to replace it, or choose another"  # and then the command's own flag
ADVICE = f"{REPLACE} output folder"


class CheckpointFolder:
    """The checkpoint of one training run."""

    def __init__(self, folder: Path, identity: dict[str, Any], advice: str = ADVICE) -> None:
        """Nothing is read or written yet; `identity` holds JSON values only.

        advice: what to do where the folder is another run's.
        """
        self.folder, self._advice = folder, advice
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._state = folder / "state.pt"
        self._record = folder / "identity.json"

    def check(self) -> bool:
        """Whether an earlier try of the same run left something to resume; nothing is written.

        Raises ValueError, listing the keys that differ, if the folder belongs to a run with other settings.
        """
        found = read_identity(self._record)
        if found is not None and (differences := differing_keys(found, self.identity)):
            raise ValueError(changed_message(self.folder, differences, self._advice))
        return self._state.is_file()

    def claim(self) -> bool:
        """Take the folder for this run; what it returns and raises is what `check` does."""
        there = self.check()
        if not self._record.is_file():
            write_record(self._record, self.identity)
        return there

    def matches(self) -> bool:
        """Whether the folder was claimed by this very run."""
        return read_identity(self._record) == self.identity

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state; ValueError, and the saved one stays, if a tensor in it is not finite."""
        if bad := _not_finite(state):
            raise ValueError(
                f"{self._state}: not saved, {bad} has values that are not finite; the last good one stays; "
                "lower the learning rate or use another precision"
            )
        with atomic_write(self._state) as file:
            torch.save(state, file)

    def load(self) -> dict[str, Any]:
        """The saved state, on the CPU. Raises ValueError if the file is damaged or holds anything but plain
        values."""
        try:
            content = load_pt(self._state)
            if isinstance(content, dict):
                return content
            raise ValueError(f"got {type(content).__name__}, expected a dictionary")
        except Exception as error:  # whatever damage brings up in torch
            raise ValueError(
                f"{self._state}: damaged checkpoint ({error}); delete {self.folder} to train this task anew"
            ) from error

    def remove(self) -> None:
        """Delete the checkpoint, after the expert is safely stored; logs in the same folder stay."""
        shutil.rmtree(self.folder / "deepspeed", ignore_errors=True)
        for file in (self._state, self._record):
            file.unlink(missing_ok=True)


def _not_finite(value: object, name: str = "state") -> str | None:
    """Where in nested dictionaries and lists a tensor has a value that is not finite; None for nowhere."""
    if isinstance(value, torch.Tensor):
        return None if bool(torch.isfinite(value).all()) else name
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = (_not_finite(part, f"{name}.{key}") for key, part in parts)
    return next((place for place in found if place), None)


def changed_message(place: Path, differences: list[str], advice: str = ADVICE) -> str:
    """The refusal for a place that holds the work of other settings."""
    head = f"{place} was made with other settings; nothing was touched. {advice}. What differs:"
    return "\n  ".join([head, *differences])
