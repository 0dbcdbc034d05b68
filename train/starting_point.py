"""Where a task's expert starts: fresh, from the previous expert, from the nearest by anchor, or from their
mean.

The earlier experts are read from their files and never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from model.moe.anchors import Anchor
from model.moe.expert_files import inspect_expert, read_expert
from model.moe.expert_init import mean_state
from model.moe.experts import ExpertBank
from model.moe.routing import Router
from model.moe.routing_records import RouterConfig, RoutingFeatures


def starting_point(
    bank: ExpertBank, how: str, sources: Sequence[Path], anchor: Anchor | None, earlier: Sequence[Anchor]
) -> Mapping[str, Tensor]:
    """The starting weights of an expert.

    Args:
        how: "previous", "nearest" or "mean".
        sources: expert files in task order; for "previous" the last one is taken.
        anchor, earlier: the new task's anchor and those of `sources`, for "nearest".

    Raises:
        ValueError: a file is damaged, or made for another base.
    """
    if how == "mean":
        states = [_read(bank, path) for path in sources]
        return mean_state(states)
    chosen = -1
    if how == "nearest":
        assert anchor is not None
        features = RoutingFeatures.from_samples([dict(anchor.means)])
        routing = Router(earlier, RouterConfig()).route(features)
        chosen = routing.candidates.index(routing.task_ids[0])
    return _read(bank, sources[chosen])


def _read(bank: ExpertBank, path: Path) -> dict[str, Tensor]:
    """An expert's tensors, whatever its task, made for this base."""
    header = inspect_expert(path).header
    wanted = replace(header, base_identity=bank.base_identity)
    return read_expert(path, wanted)
