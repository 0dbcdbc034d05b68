"""Experts and anchors: complete pairs, of one make, for this backbone.

Tensors stay on disk: keys, shapes and headers are enough, an expert of several GB takes milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.benchmark import Task
from data.doctor.findings import Level, Section
from data.doctor.hashes import Reference
from data.expert_map import read_expert_map
from data.files import sha256_file
from data.folders import StudyFolders, stored_anchor, stored_expert
from data.run_record import read_record
from data.text_features import may_be_kind
from model.file_faults import is_partial
from model.language_model.backbone import Backbone
from model.moe.anchor_files import load_anchor, stats_path
from model.moe.anchors import Anchor
from model.moe.expert_files import ExpertFile, check_tensors, inspect_expert, read_expert
from model.moe.experts import ExpertBank, ExpertConfig
from model.moe.files import stored_path
from model.moe.routing import Router
from model.moe.routing_records import RouterConfig
from model.recognition import WEIGHT_SUFFIXES, Recognised, recognise

EXPERT_NAME, ANCHOR_NAME = (
    re.compile(r"expert_task_(0|[1-9]\d*)\.(?:pt|safetensors)"),
    re.compile(r"anchor_task_(0|[1-9]\d*)\.(?:pt|safetensors)"),
)


def find_folders(section: Section, given: Path) -> tuple[Path, Path] | None:
    """Folders of experts and of anchors, by the rule of the evaluation; None where either has none."""
    if not given.is_dir():
        section.add(Level.PROBLEM, given, "no such folder; train first or correct --experts")
        return None
    folders = StudyFolders(given, given_experts=given)
    found: list[Path] = []
    for find in (folders.experts, folders.anchors):
        try:
            found.append(find("anchor_moe"))
        except ValueError as error:
            section.add(Level.PROBLEM, given, str(error))
    if len(found) == 2:
        return found[0], found[1]
    for folder in dict.fromkeys([given, *found]):
        _name_strangers(section, folder)
    return None


def check_experts(
    section: Section, given: Path, backbone: Backbone | None, tasks: Sequence[Task], text_feature: str
) -> tuple[list[Path], dict[Path, Reference]]:
    """Everything about a folder of experts; returns its files and the hashes that their records state.

    Without a backbone files and pairs are checked, not whether they fit.
    """
    folders = find_folders(section, given)
    if folders is None:
        return [], {}
    experts, anchors = folders
    if backbone is None:
        section.add(Level.NOTE, "", "without a backbone that loads it is not checked whether they fit it")
    try:
        ids = _pairs(section, experts, anchors, tasks)
        files = {task: stored_expert(experts, task) for task in ids}
    except ValueError as error:  # experts.json is damaged, or a task has two experts
        section.add_error(error, experts)
        return [], {}
    for folder in dict.fromkeys(folders):
        _name_strangers(section, folder)
    makes: dict[int, ExpertFile] = {}
    loaded: list[Anchor] = []
    with section.hearing():
        for task, path in files.items():
            if (made := _expert(section, task, path, backbone)) is not None:
                makes[task] = made
            if (anchor := _anchor(section, stored_anchor(anchors, task), task, backbone)) is not None:
                loaded.append(anchor)
        if loaded:
            _route(section, loaded, text_feature)
    _describe(section, experts, makes, loaded, len({files[task] for task in makes}))
    weights = [
        p for t in ids for p in (files[t], stored_anchor(anchors, t), stats_path(stored_anchor(anchors, t)))
    ]
    known = _recorded(section, experts, anchors, tasks)
    return [path for path in dict.fromkeys(weights) if path.is_file()], known


def _pairs(section: Section, experts: Path, anchors: Path, tasks: Sequence[Task]) -> list[int]:
    """Ids of tasks that have a file of either kind; halves, gaps and tasks without either are problems."""
    having = [
        {int(m[1]) for path in folder.iterdir() if (m := name.fullmatch(path.name))}
        for folder, name in ((experts, EXPERT_NAME), (anchors, ANCHOR_NAME))
    ]
    having[0] |= set(read_expert_map(experts))
    there = sorted(having[0] | having[1])
    wanted = set(range(max(there) + 1)) | {task.id for task in tasks}
    for task in sorted(wanted):
        missing = [
            path
            for path, ids in (
                (stored_expert(experts, task), having[0]),
                (stored_anchor(anchors, task), having[1]),
            )
            if task not in ids
        ]
        if len(missing) == 2:
            why = f"tasks {_listed(there)} are there" if task < max(there) else "the benchmark has this task"
            section.add(Level.PROBLEM, experts, f"task {task} has neither expert nor anchor, but {why}")
        elif missing:
            other = "anchor" if missing[0].name.startswith("expert") else "expert"
            section.add(Level.PROBLEM, missing[0], f"missing, though the {other} of task {task} is there")
    if tasks and max(there) >= len(tasks):
        more = [task for task in there if task >= len(tasks)]
        section.add(
            Level.WARNING, experts, f"tasks {_listed(more)} are not in the benchmark ({len(tasks)} tasks)"
        )
    return there


def _name_strangers(section: Section, folder: Path) -> None:
    """Files whose names no run looks for: renamed experts and anchors, half-written files."""
    try:
        shared = {stored_path(folder / name) for name in read_expert_map(folder).values()}
    except ValueError:
        shared = set()  # said already
    for path in sorted(folder.iterdir()):
        if path.is_dir() or EXPERT_NAME.fullmatch(path.name) or ANCHOR_NAME.fullmatch(path.name):
            continue
        if path in shared:
            continue
        if not (path.suffix in WEIGHT_SUFFIXES or is_partial(path)) or path.name.endswith(
            ".stats.safetensors"
        ):
            continue
        found: Recognised = recognise(path)
        if found.kind in ("expert", "anchor"):
            name = f"{found.kind}_task_K.pt"
            section.add(
                Level.WARNING, path, f"is {found.what} under a name that is not looked for; expected {name}"
            )
        else:
            section.add(Level.WARNING, path, f"not used: {found.what}")


def _is_one(section: Section, path: Path, kind: str) -> bool:
    """Whether a file is there and is, by its content, of a kind; another one is a problem, none is not."""
    if not path.is_file():
        return False
    found = recognise(path)
    if found.kind != kind:
        what = found.what if found.kind == "other" else f"is {found.what}, no {kind}"
        section.add(Level.PROBLEM, path, what)
    return found.kind == kind


def _expert(section: Section, task: int, path: Path, backbone: Backbone | None) -> ExpertFile | None:
    """Inspect one expert and hold it against the backbone; None, with the reason, if it is no good."""
    if not _is_one(section, path, "expert"):
        return None
    try:
        made = inspect_expert(path)
        identity = backbone.identity if backbone else made.header.base_identity
        wanted = replace(made.header, task_id=task, base_identity=identity)
        tensors = read_expert(path, wanted, mmap=True)
        if backbone is not None:
            bank = ExpertBank(backbone.llm, made.config, backbone.identity)
            try:
                check_tensors(tensors, bank.expected_shapes(), str(path))
            finally:
                bank.detach()
    except ValueError as error:
        section.add_error(error, path)
        return None
    return made


def _anchor(section: Section, path: Path, task: int, backbone: Backbone | None) -> Anchor | None:
    """Load one anchor and hold its widths against the backbone; None, with the reason, if it is no good."""
    if not _is_one(section, path, "anchor"):
        return None
    try:
        anchor = load_anchor(path, task, backbone.identity if backbone else None)
    except ValueError as error:
        section.add_error(error, path)
        return None
    for name, width in backbone.encoder.routing_widths.items() if backbone else ():
        if name in anchor.means and len(anchor.means[name]) != width:
            section.add(
                Level.PROBLEM,
                path,
                f"{name} is {len(anchor.means[name])} wide, this backbone's is {width}; "
                "made with another backbone",
            )
            return None
    return anchor


def _route(section: Section, anchors: Sequence[Anchor], text_feature: str) -> None:
    """Whether a router takes these anchors together, and questions of this text feature."""
    try:
        Router(anchors, RouterConfig())
    except ValueError as error:
        section.add(Level.PROBLEM, "anchors", str(error))
    kinds = {anchor.stats["text"].feature_kind for anchor in anchors if "text" in anchor.stats}
    if not all(may_be_kind(kind, text_feature) for kind in kinds):
        section.add(
            Level.PROBLEM,
            "anchors",
            f"made with the text feature {' and '.join(sorted(kinds))}, but --text_feature is {text_feature}",
        )


def _describe(
    section: Section, folder: Path, makes: dict[int, ExpertFile], anchors: Sequence[Anchor], files: int
) -> None:
    configs: dict[ExpertConfig, list[int]] = {}
    for task, made in makes.items():
        configs.setdefault(made.config, []).append(task)
    if len(configs) > 1:
        ways = "; ".join(f"tasks {_listed(tasks)}: {_in_words(config)}" for config, tasks in configs.items())
        section.add(Level.PROBLEM, folder, f"experts of different make cannot answer together: {ways}")
    elif configs and not section.count(Level.PROBLEM):
        [(config, tasks)] = configs.items()
        merged = f", merged into {files}" if files < len(tasks) else ""
        section.add(
            Level.OK, folder, f"tasks {_listed(tasks)}: {_in_words(config)}, each with its anchor{merged}"
        )
    section.facts["tasks"] = sorted(makes)
    section.facts["anchors_with_statistics"] = [anchor.task_id for anchor in anchors if anchor.complete]
    section.facts["published_anchors"] = bool(anchors) and not any(anchor.complete for anchor in anchors)


def _in_words(config: ExpertConfig) -> str:
    layers = config.layers if isinstance(config.layers, str) else _listed(config.layers)
    kind = "full MLP" if config.kind == "mlp" else f"LoRA rank {config.rank}, alpha {config.alpha:g}"
    return f"{kind} on layers {layers} ({', '.join(config.projections)}), acting on {config.tokens} tokens"


def _recorded(section: Section, experts: Path, anchors: Path, tasks: Sequence[Task]) -> dict[Path, Reference]:
    """The hashes that run records state for the files beside them; experts that other data made are said."""
    known: dict[Path, Reference] = {}
    files = {task.id: task.train for task in tasks if task.train is not None and task.train.is_file()}
    for record in sorted(experts.glob("expert_*_*.run.json")):
        try:
            content = read_record(record)
            for name, digest in content["files"].items():
                path = (anchors if name.startswith("anchor_") else experts) / name
                known[path] = Reference(digest, "run record")
            if "merging" in content["identity"]:
                continue  # of several tasks; what their experts learned from stands in the records of these
            task, data = content["identity"]["task_id"], set(content["identity"]["data"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            section.add(Level.WARNING, record, f"no readable run record ({error})")
            continue
        if task in files and sha256_file(files[task]) not in data:
            section.add(
                Level.WARNING,
                stored_expert(experts, task),
                "trained on other questions than this benchmark's",
            )
    return known


def _listed(ids: Sequence[int]) -> str:
    """0, 1, 2, 5 -> `0 to 2, 5`."""
    runs: list[list[int]] = []
    for number in ids:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
