"""Where a task's expert starts: fresh, from the previous expert, from the nearest by anchor, or from their
mean; a fresh one with random A, or with A fitted to the task's states.

The earlier experts are read from their files and never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from data.inputs import Inputs
from data.samples import Sample
from model.language_model.anchor_lm import AnchorLM
from model.moe.anchors import Anchor
from model.moe.expert_files import inspect_expert, read_expert
from model.moe.expert_init import mean_state, principal_state
from model.moe.expert_layers import record_inputs
from model.moe.experts import NO_EXPERT, ExpertBank
from model.moe.routing import Router
from model.moe.routing_records import RouterConfig, RoutingFeatures

FITTED_SAMPLES = 512  # questions at most that A is fitted to, evenly spaced over the file


def fitted_start(
    model: AnchorLM,
    inputs: Inputs,
    samples: Sequence[Sample],
    generator: torch.Generator,
    *,
    batch_size: int,
    without_media: bool = False,
) -> Mapping[str, Tensor]:
    """A fresh LoRA expert with A fitted to the layer inputs at the end of the task's prompts, bare backbone.

    Every process computes it from the same samples, so that all start alike.
    """
    assert model.bank is not None
    step = -(-len(samples) // FITTED_SAMPLES)
    chosen = samples[::step]
    with record_inputs(model.bank.layers) as kept:
        rows: dict[str, list[Tensor]] = {key: [] for key in kept}
        for start in range(0, len(chosen), batch_size):
            part = chosen[start : start + batch_size]
            batch = inputs.batch(part, with_answers=False, without_media=without_media)
            model.generate(batch, [NO_EXPERT] * len(part), 1, inputs.tokenizer.eos_token_id)
            for key, calls in kept.items():  # left padding: the last place is every prompt's end
                rows[key].append(calls[-1][:, -1].float().cpu())
                calls.clear()
    fresh = model.bank.fresh_state(generator)
    return principal_state(fresh, {key: torch.cat(parts) for key, parts in rows.items()})


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
