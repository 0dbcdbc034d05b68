"""What the fault cases count: tried, survived, lost."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Tally:
    """One case. A try that is not survived is lost: something finished is gone, a number differs, a damaged
    byte was used, or the error does not say what happened."""

    name: str
    tried: int = 0
    survived: int = 0
    notes: list[str] = field(default_factory=list)
    """What was tried, in numbers."""
    losses: list[str] = field(default_factory=list)
    """One line for each loss."""
    skipped: str = ""
    """Why the case cannot be tried here."""

    @property
    def lost(self) -> int:
        return self.tried - self.survived

    def count(self, loss: str | None) -> None:
        """One try, with the reason if it was lost."""
        self.tried += 1
        if loss is None:
            self.survived += 1
        else:
            self.losses.append(loss)

    def row(self) -> str:
        """One line of the table."""
        if self.skipped:
            return f"{self.name:<14} {'-':>7} {'-':>9} {'-':>5}  skipped: {self.skipped}"
        return f"{self.name:<14} {self.tried:>7} {self.survived:>9} {self.lost:>5}  {'; '.join(self.notes)}"


HEADER = f"{'case':<14} {'tried':>7} {'survived':>9} {'lost':>5}"
