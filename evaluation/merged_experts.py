"""A folder of merged experts: experts of similar tasks folded into one, the anchors as they were.

DIR/anchors/anchor_task_k.pt, .stats.safetensors     copies: routing is what it was
DIR/experts/expert_task_k.pt                         copies of experts that stay alone
DIR/experts/expert_merged_k.pt, .run.json            an expert of several tasks, k the lowest of them
DIR/experts/experts.json                             which tasks share which (data/expert_map.py)
DIR/merging.json                                     grouping, distances, method, weights, sources
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from data.expert_map import MAP, merged_name, read_expert_map, write_expert_map
from data.files import sha256_file
from data.folders import stored_anchor, stored_expert
from data.run_record import provenance, read_identity, write_record
from evaluation.anchor_moe import task_ids_in
from model.moe.anchor_files import load_anchor, stats_path
from model.moe.anchors import Anchor
from model.moe.expert_files import ExpertFile, inspect_expert, read_expert, write_expert
from model.moe.merging import FoldConfig, Grouping, anchor_distances, fold, group_tasks

RECORD = "merging.json"


@dataclass(frozen=True)
class Sources:
    """The experts that are to be merged, all of one make, and their anchors."""

    files: Mapping[int, Path]  # task -> expert file
    anchors: tuple[Anchor, ...]
    anchor_files: tuple[Path, ...]
    make: ExpertFile
    counts: Mapping[int, int] | None  # task -> training samples; None where an anchor has no statistics

    def group(self, keep: int) -> Grouping:
        """The tasks in `keep` groups, by the distance of their anchors."""
        return group_tasks(*anchor_distances(self.anchors), keep)


def open_sources(experts: Path, anchors: Path) -> Sources:
    """Look at a folder of experts and one of anchors.

    Raises:
        ValueError: an expert or anchor is missing or damaged, experts of different bases, kinds, ranks,
            alphas, layers, projections or scopes, anchors of another base, or experts that are merged
            already.
    """
    if read_expert_map(experts):
        raise ValueError(f"{experts}: its experts are merged already ({MAP}); merge from the trained ones")
    tasks = task_ids_in(experts, anchors)
    files = {task: stored_expert(experts, task) for task in tasks}
    makes = {task: inspect_expert(path) for task, path in files.items()}
    first = tasks[0]
    for task, made in makes.items():
        wanted = replace(makes[first].header, task_id=task)
        got = replace(made.header, task_id=task)
        for (name, one), other in zip(asdict(wanted).items(), asdict(got).values(), strict=True):
            if one != other:
                raise ValueError(
                    f"{files[task]}: {name} is {other!r}, of {files[first].name} {one!r}; only experts of "
                    "one make and base merge"
                )
        if made.config != makes[first].config:
            raise ValueError(
                f"{files[task]}: other layers or projections than {files[first].name}; only experts of one "
                "make and base merge"
            )
    anchor_files = tuple(stored_anchor(anchors, task) for task in tasks)
    base = makes[first].header.base_identity
    loaded = tuple(load_anchor(p, task, base) for task, p in zip(tasks, anchor_files, strict=True))
    counts = None
    if all(anchor.complete for anchor in loaded):
        counts = {a.task_id: max(part.count for part in a.stats.values()) for a in loaded}
    return Sources(files, loaded, anchor_files, makes[first], counts)


def write_merged(
    sources: Sources,
    grouping: Grouping,
    config: FoldConfig,
    output: Path,
    base: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the folder of merged experts; it appears when it is complete.

    A task that stays alone keeps its expert's very bytes. Weights of the fold: the tasks' training samples,
    equal where they are unknown. Memory: the experts of one group.

    Args:
        base: the backbone's own weights, for full-MLP experts folded by `ties` (see `fold`).

    Raises:
        ValueError: `output` is there and not empty, an expert is damaged, records of one group name other
            inputs, or as `fold`.
        OSError: not writable, or the disk is full.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output}: exists; choose a new folder, so that nothing of an earlier merge stays")
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / "experts").mkdir(parents=True)
        (partial / "anchors").mkdir()
        for path in sources.anchor_files:
            for part in (path, stats_path(path)):
                if part.is_file():
                    shutil.copyfile(part, partial / "anchors" / part.name)
        shared: dict[int, str] = {}
        for group in grouping.groups:
            if len(group) == 1:
                _copy_expert(sources.files[group[0]], partial / "experts")
            else:
                name = merged_name(group)
                _write_group(sources, group, config, partial / "experts" / name, base)
                shared |= dict.fromkeys(group, name)
        if shared:
            write_expert_map(partial / "experts", shared)
        about = {**_identity(sources, config), "groups": grouping.groups}
        write_record(
            partial / RECORD, about, joins=[asdict(j) for j in grouping.joins], provenance=provenance()
        )
        if output.is_dir():
            output.rmdir()
        partial.replace(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def fold_group(
    sources: Sources, group: Sequence[int], config: FoldConfig, base: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The expert of a group of tasks: see `write_merged`."""
    header = sources.make.header
    states = [read_expert(sources.files[task], replace(header, task_id=task)) for task in group]
    weights = None if sources.counts is None else [sources.counts[task] for task in group]
    return fold(states, config, weights, base)


def _copy_expert(path: Path, folder: Path) -> None:
    for part in (path, record_of(path)):
        if part.is_file():
            shutil.copyfile(part, folder / part.name)


def record_of(expert: Path) -> Path:
    """`expert_task_k.run.json`, the record beside an expert file."""
    return expert.with_suffix(".run.json")


def _write_group(
    sources: Sources,
    group: tuple[int, ...],
    config: FoldConfig,
    path: Path,
    base: Mapping[str, Tensor] | None,
) -> None:
    """Write the expert of a group and its record. The file names no task: it is that of several."""
    write_expert(path, replace(sources.make.header, task_id=None), fold_group(sources, group, config, base))
    identity = {**_identity(sources, config, group), "tasks": group}
    if inputs := _shared_inputs(sources, group):
        identity["inputs"] = inputs
    anchors = [p for p, a in zip(sources.anchor_files, sources.anchors, strict=True) if a.task_id in group]
    files = [path, *(part for anchor in anchors for part in (anchor, stats_path(anchor)) if part.is_file())]
    write_record(record_of(path), identity, files={part.name: sha256_file(part) for part in files})


def _identity(sources: Sources, config: FoldConfig, group: tuple[int, ...] | None = None) -> dict[str, Any]:
    chosen = [task for task in sources.files if group is None or task in group]
    return {
        "merging": {
            "method": config.method,
            **({"density": config.density} if config.method == "ties" else {}),
        },
        "weights": None if sources.counts is None else {str(t): sources.counts[t] for t in chosen},
        "sources": {sources.files[task].name: sha256_file(sources.files[task]) for task in chosen},
        "base_identity": sources.make.header.base_identity,
    }


def _shared_inputs(sources: Sources, group: tuple[int, ...]) -> dict[str, Any]:
    """What the records of a group say about frames and features; empty where there are none."""
    found: dict[str, Any] = {}
    for task in group:
        record = record_of(sources.files[task])
        inputs = (read_identity(record) or {}).get("inputs", {})
        if found and inputs and inputs != found:
            raise ValueError(
                f"{record}: inputs are {inputs}, those of another expert of the group {found}; train the "
                "tasks with the same inputs"
            )
        found = found or inputs
    return found
