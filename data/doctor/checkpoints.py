"""The backbone: what each entry of a checkpoint folder is, whether it is whole, whether the parts fit.

The LLM stays on the meta device (`load_backbone(shapes_only=True)`), so 7B take seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from data.doctor.findings import Level, Section
from model.encoders.beats import load_beats
from model.encoders.vision import VisionTower
from model.file_faults import byte_fault, is_partial
from model.language_model.backbone import TINY, Backbone, BackbonePaths, load_backbone
from model.recognition import EXPERTS, NAMES, WANTED, WEIGHT_SUFFIXES, Kind, Recognised, recognise
from model.tensor_files import INDEX_FILES, SINGLE_FILES, read_json, read_plain

PARTS: tuple[Kind, ...] = ("base", "vision", "audio")
READ_BY_NAME = ("preprocessor_config.json", "tokenizer.model", "tokenizer_config.json")


Parts = dict[Kind, Path | str]  # the vision tower may be `open_clip:...`


def find_parts(section: Section, root: Path) -> Parts:
    """The parts of a backbone under a checkpoint folder, after naming everything that lies there.

    A part under another name is taken where exactly one entry can be it, and is a problem all the same.
    """
    if not root.is_dir():
        section.add(Level.PROBLEM, root, "no such folder; give --checkpoints the folder of the checkpoints")
        return {}
    itself = recognise(root)
    if itself.kind in PARTS:
        section.add(Level.PROBLEM, root, f"is {itself.what}; give --checkpoints the folder that holds it")
        return {}
    parts = _survey(section, root)
    if not parts and not any((root / NAMES[kind]).exists() for kind in PARTS) and (root / TINY).is_dir():
        tiny = root / TINY
        section.add(Level.NOTE, root, f"none of the three published paths is there: {tiny} is used")
        parts = _survey(section, tiny)
    return parts


def _survey(section: Section, folder: Path) -> Parts:
    """Kind -> path of the parts that lie in a folder; what is missing, misnamed or something else."""
    entries = [path for path in sorted(folder.iterdir()) if not _is_hidden(path) and path.name != TINY]
    found = {path: recognise(path) for path in entries}
    parts: Parts = {}
    missing: list[Kind] = []
    named = {folder / name for name in NAMES.values()}
    for kind in PARTS:
        path = folder / NAMES[kind]
        others = [other for other in entries if other not in named and found[other].kind == kind]
        if path in found and found[path].kind == kind:
            parts[kind] = path
        elif path in found:
            section.add(Level.PROBLEM, path, f"{found[path].what}; expected {WANTED[kind]}")
            check_files(section, {kind: path})
        elif len(others) == 1:
            parts[kind] = others[0]
            section.add(
                Level.PROBLEM,
                others[0],
                f"is {found[others[0]].what} under another name; rename it to {NAMES[kind]}",
            )
        elif others:
            several = ", ".join(other.name for other in others)
            section.add(
                Level.PROBLEM, path, f"missing, and several could be it: {several}; rename the right one"
            )
        else:
            missing.append(kind)
    if len(missing) < len(PARTS) or folder.name == TINY:
        for kind in missing:
            section.add(Level.PROBLEM, folder / NAMES[kind], f"missing: {WANTED[kind]}")
    for path in entries:
        if path not in named and path not in parts.values():
            _say_unused(section, path, found[path])
    return parts


def _say_unused(section: Section, path: Path, found: Recognised) -> None:
    if found.kind == "partial":
        section.add(Level.WARNING, path, f"{found.what}; not used")
    elif found.kind == "checkpoints":
        section.add(Level.NOTE, path, f"{found.what}; give it to --checkpoints to use it")
    elif found.kind == "experts":
        section.add(Level.NOTE, path, f"{found.what}; give the folder to --experts to check them")
    elif found.kind != "other":
        section.add(Level.WARNING, path, f"{found.what}, not used here")
    elif path.is_dir() or path.suffix in WEIGHT_SUFFIXES:
        section.add(Level.NOTE, path, f"not used: {found.what}")


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") and not is_partial(path)


def check_files(section: Section, parts: Parts) -> list[Path]:
    """One line for each faulty file of the parts; returns the weight files that a run reads."""
    used: list[Path] = []
    for part in parts.values():
        folder = Path(part)
        if folder.is_file():
            used.append(folder)
        if not folder.is_dir():
            continue
        for path in sorted((folder / ".cache" / "huggingface" / "download").glob("*.incomplete")):
            section.add(Level.WARNING, path, "a download that is not finished; run it again")
        wanted = _wanted(section, folder)
        used += [path for path in wanted if path.is_file()]
        for path in sorted(folder.iterdir()):
            if path.is_dir() or _is_hidden(path):
                continue
            if is_partial(path):
                section.add(Level.WARNING, path, recognise(path).what)
            elif path in wanted or path.name in READ_BY_NAME:
                _add_fault(section, path, Level.PROBLEM)
            elif path.suffix in WEIGHT_SUFFIXES:
                _add_fault(section, path, Level.NOTE)
    return used


def _wanted(section: Section, folder: Path) -> list[Path]:
    """The weight files that a model folder is read from; those that its index names and that are not there
    are added to the section."""
    for name in INDEX_FILES:
        index = folder / name
        if not index.is_file():
            continue
        if fault := byte_fault(index):
            section.add(Level.PROBLEM, index, fault)
            return []
        placed = read_json(index).get("weight_map")
        names = sorted(set(placed.values())) if isinstance(placed, dict) else []
        for shard in names:
            if not (folder / shard).exists():
                section.add(Level.PROBLEM, folder / shard, f"missing, though {name} names it")
        return [folder / shard for shard in names]
    return next(([folder / name] for name in SINGLE_FILES if (folder / name).is_file()), [])


def _add_fault(section: Section, path: Path, level: Level) -> None:
    fault = byte_fault(path)
    if fault is None and path.suffix in WEIGHT_SUFFIXES and path.suffix != ".safetensors":
        try:
            read_plain(path)
        except ValueError as error:
            fault = str(error).removeprefix(f"{path}: ")
    if fault is not None:
        section.add(level, path, fault if level == Level.PROBLEM else f"not used, and no good: {fault}")


def check_backbone(
    section: Section, parts: Parts, qformer: Mapping[str, Any] | None, dtype: torch.dtype
) -> tuple[Backbone | None, list[Path]]:
    """Look at every file, then put the parts together as a run does, without the LLM's weights.

    Returns the backbone, None (with reasons in the section) where there is none, and the weight files.
    """
    start = len(section.findings)
    files = check_files(section, parts)
    faulty = {finding.where for finding in section.findings[start:] if finding.level == Level.PROBLEM}
    attempts: list[Callable[[], object]] = []
    if set(parts) == set(PARTS):
        paths = BackbonePaths(Path(parts["base"]), parts["vision"], Path(parts["audio"]))
        attempts.append(lambda: load_backbone(paths, dtype=dtype, qformer=qformer, shapes_only=True))
    if "vision" in parts:
        attempts.append(lambda: VisionTower.load(parts["vision"]))
    if "audio" in parts:
        attempts.append(lambda: load_beats(parts["audio"]))
    with section.hearing():
        for attempt in attempts:
            try:
                made = attempt()
            except (ValueError, OSError) as error:
                if not any(path in str(error) or Path(path).name in str(error) for path in faulty):
                    section.add_error(error, parts.get("base", ""))
                continue
            if isinstance(made, Backbone):
                _describe(section, made)
                return made, files
    return None, files


def _describe(section: Section, backbone: Backbone) -> None:
    """What was loaded, and the checks that loading leaves out."""
    llm, encoder, paths = backbone.llm, backbone.encoder, backbone.paths
    sizes = llm.config
    parameters = sum(parameter.numel() for parameter in llm.parameters())
    section.add(
        Level.OK,
        paths.base,
        f"LLM {sizes.num_hidden_layers} x {sizes.hidden_size}, {_millions(parameters)} parameters, "
        f"projector, audio aligner with {encoder.aligner.query_tokens.shape[1]} queries; "
        f"identity {backbone.identity[:16]}",
    )
    pixels = " x ".join(map(str, encoder.vision.image_size))
    section.add(
        Level.OK,
        paths.vision,
        f"vision tower, {encoder.vision.width} wide, {pixels} pixels, {encoder.vision.patches} patches",
    )
    beats = recognise(Path(paths.audio)).what
    fine_tuned = encoder.audio.beats.config.finetuned_model
    section.add(
        Level.WARNING if fine_tuned else Level.OK,
        paths.audio,
        f"{beats}; the published system uses the pre-trained one, whose features differ"
        if fine_tuned
        else beats,
    )
    pieces, rows = len(backbone.tokenizer), llm.get_input_embeddings().num_embeddings
    if pieces > rows:
        section.add(
            Level.PROBLEM,
            Path(paths.base) / "tokenizer.model",
            f"has {pieces} pieces, the LLM {rows} embeddings; it belongs to another model",
        )
    section.facts.update(
        identity=backbone.identity,
        paths={kind: str(getattr(paths, kind)) for kind in PARTS},
        parameters=parameters,
    )


def _millions(count: int) -> str:
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def given_experts(root: Path) -> Path | None:
    """The published place of experts, where there is one."""
    return root / EXPERTS if (root / EXPERTS).is_dir() else None
