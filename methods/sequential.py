"""Fine-tuning of one expert, task after task: how much is forgotten where nothing is done against it."""

from __future__ import annotations

from typing import ClassVar

from methods.base import Continued


class Sequential(Continued):
    """Plain fine-tuning. With experts that start from the nearest earlier one, the second task is the same
    training as that of `anchor_moe` too."""

    name: ClassVar[str] = "sequential"
    usual: ClassVar[bool] = True
    waits: ClassVar[bool] = True

    def plain(self, cell: object) -> bool:
        """All tasks are."""
        return True
