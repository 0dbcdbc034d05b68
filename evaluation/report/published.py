"""Published numbers, each with its source, for the column beside the measured ones.

Protocols differ between papers by tens of points, so a published number stands beside a measured one only
where the tasks and the number of test questions are those of the published split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """What a paper reports for one method on one benchmark."""

    benchmark: str
    questions: tuple[int, ...]  # test questions of each task
    method: str  # the method of ours that it stands beside
    MA: float
    AF: float
    source: str


SOURCE = "AVQACL-MoE, as quoted in its public reviews"
PUBLISHED = (
    Published("Split-AVQA", (1849, 928, 749, 2352), "anchor_moe", 86.41, 2.34, SOURCE),
    Published("Split-MUSIC-AVQA", (947, 893, 711, 972, 637), "anchor_moe", 72.02, 1.79, SOURCE),
)


def comparable(summary: Mapping[str, Any]) -> Published | None:
    """The published numbers of the very split that was evaluated, None if it is another."""
    split = summary["provenance"].get("split", "test")
    sizes = {entry.get("n") for entry in summary["methods"].values()}
    for known in PUBLISHED:
        if (
            len(summary["tasks"]) == len(known.questions)
            and sizes == {sum(known.questions)}
            and split == "test"
        ):
            return known
    return None
