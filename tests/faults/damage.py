"""Flipped bits and lost ends in every kind of file that is kept: found by the reader, or without effect."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.feature_files import FeatureFiles
from data.files import read_json, require_unchanged, with_checksum, write_json_atomic
from data.media_index import MediaIndex
from data.run_record import read_record
from evaluation.answer_book import AnswerBook
from evaluation.report.reading import ANCHOR_MAP, COSTS, JUDGED, read_beside
from model.encoders.beats import load_beats
from model.encoders.vision import VisionTower
from model.language_model.backbone import AUDIO, BASE, VISION
from model.language_model.prefix_files import read_prefix, write_prefix
from model.moe.anchor_files import load_anchor, stats_path
from model.moe.expert_files import inspect_expert, read_expert
from model.moe.expert_pack import PACK, packed_experts
from model.moe.files import read_tensor_file, write_tensor_file
from model.tensor_files import read_weights
from tests.faults.jobs import Study
from tests.faults.tally import Tally
from tests.flipping import as_torch
from tests.recipe.studies import ROOT
from train.checkpoints import CheckpointFolder

TINY = ROOT / "checkpoints" / "tiny"
Reader = Callable[[Path], Any]


@dataclass(frozen=True)
class Kind:
    """One kind of file: a good one in a folder of its own, and the reader of this project for it."""

    name: str
    file: Path
    read: Reader


def same(one: object, two: object) -> bool:
    """Whether two contents are equal, tensors bit for bit."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(value, two[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


def case_damage(root: Path, study: Study, flips: int, cuts: int, seed: int) -> Iterator[Tally]:
    """`flips` flipped bits and `cuts` cut-off ends in each kind of file."""
    draw = random.Random(seed)
    for kind in kinds(root / "damage", study):
        yield _damage(kind, flips, cuts, draw)


def _damage(kind: Kind, flips: int, cuts: int, draw: random.Random) -> Tally:
    tally, ways = Tally(f"damage {kind.name}"), Counter[str]()
    good = kind.file.read_bytes()
    wanted = kind.read(kind.file)
    for number in range(flips + cuts):
        content = bytearray(good)
        if number < flips:
            place, bit = draw.randrange(len(good)), draw.randrange(8)
            content[place] ^= 1 << bit
            what = f"bit {bit} of byte {place} of {len(good)}"
        else:
            del content[draw.randrange(len(good)) :]
            what = f"cut to {len(content)} of {len(good)} bytes"
        kind.file.write_bytes(content)
        loss = None
        try:
            got = kind.read(kind.file)
            ways["without effect"] += 1
            if not same(got, wanted):
                loss = f"{what}: used in silence"
        except (ValueError, OSError) as error:
            ways["found"] += 1
            if kind.file.name not in str(error):
                loss = f"{what}: the error does not name the file: {error}"
        except Exception as error:
            loss = f"{what}: {type(error).__name__}: {error}"
        tally.count(loss)
    kind.file.write_bytes(good)
    tally.notes.append(", ".join(f"{count} {way}" for way, count in ways.items()))
    return tally


def kinds(folder: Path, study: Study) -> list[Kind]:
    """A good file of every kind, from what an undisturbed job left."""
    shutil.rmtree(folder, ignore_errors=True)
    experts, anchors = folder / "experts", folder / "anchors"
    shutil.copytree(study.output / "experts", experts)
    shutil.copytree(study.output / "anchors", anchors)
    safe = folder / "safe" / "expert_task_0.safetensors"
    write_tensor_file(safe, read_tensor_file(experts / "expert_task_0.pt"))
    anchor = anchors / "anchor_task_0.pt"
    state = CheckpointFolder(folder / "checkpoint", {})
    state.save(
        {"step": 3, "learned": _expert(safe), "optimizer": {"state": {0: {"exp_avg": torch.ones(50)}}}}
    )
    stored = next(study.store.glob("??/*.safetensors"))
    (folder / "store" / stored.parent.name).mkdir(parents=True)
    features = Path(shutil.copy(stored, folder / "store" / stored.parent.name))
    prefix = folder / "prefix.pt"
    write_prefix(prefix, torch.randn(4, 2, 6, 8, generator=torch.Generator().manual_seed(0)))
    reports = folder / "results"
    shutil.copytree(study.results, reports)
    row = {"name": "task0_come_results.json", "n": 2, "exact": 50.0, "judged": 100.0, "kappa": None}
    write_json_atomic(reports / JUDGED, with_checksum({"rows": [row, row], "judge": "NAME"}))
    return [
        Kind("expert.pt", experts / "expert_task_0.pt", _expert),
        Kind("expert.safe", safe, _expert),
        Kind("anchor.pt", anchor, lambda path: _anchor(path)),
        Kind("anchor stats", stats_path(anchor), lambda _: _anchor(anchor)),
        Kind("checkpoint", folder / "checkpoint" / "state.pt", lambda _: state.load()),
        Kind("features", features, _features),
        Kind("prefix", prefix, _prefix),
        Kind("answers", reports / "answers.jsonl", _answers(reports / "answers.jsonl")),
        Kind("results", next(reports.glob("*_results.json")), _report),
        Kind("summary", reports / "summary.json", _report),
        *_backbone_kinds(folder),
        _pack(Path(shutil.copytree(study.output / "experts", folder / "packed"))),
        _object("run record", Path(shutil.copy(experts / "expert_task_0.run.json", folder)), read_record),
        *(_object(name, reports / name, read_beside) for name in (ANCHOR_MAP, COSTS, JUDGED)),
        _media_index(Path(shutil.copy(study.store / "media_index.jsonl", folder))),
    ]


def _backbone_kinds(folder: Path) -> list[Kind]:
    """The backbone's weights as torch files."""
    base, vision = (shutil.copytree(TINY / name, folder / name) for name in (BASE, VISION))
    audio = Path(shutil.copy(TINY / AUDIO, folder))
    return [
        Kind("CLIP .bin", as_torch(vision)[0], lambda _: dict(VisionTower.load(vision).state_dict())),
        Kind("base .bin", next(base.glob("*.bin")), lambda _: read_weights(base)),
        Kind("BEATs", audio, lambda path: dict(load_beats(path).state_dict())),
    ]


def _pack(folder: Path) -> Kind:
    """A pack in which anything is damaged is made anew, or its expert file is read."""
    expert = folder / "expert_task_0.pt"

    def read(_: Path) -> Any:
        held = packed_experts([expert])[expert]
        return {name: held.get(name).clone() for name in held.layout.places}

    read(expert)
    return Kind(PACK, folder / PACK, read)


def _object(name: str, path: Path, read: Callable[[Path], dict[str, Any]]) -> Kind:
    """An object with its checksum; a key more, which a flip in the word `crc` makes, is none that is read."""
    wanted = read(path)
    return Kind(name, path, lambda _: {key: read(path).get(key) for key in wanted})


def _media_index(path: Path) -> Kind:
    """What a damaged line said counts as unknown."""
    wanted = _facts(path)

    def read(_: Path) -> Any:
        found = _facts(path)
        if found < wanted:
            raise ValueError(f"{path.name}: {len(wanted) - len(found)} facts are unknown")
        return found

    return Kind("media index", path, read)


def _facts(path: Path) -> set[tuple[Any, ...]]:
    found = MediaIndex(path)._facts
    return {(*key, name, value) for key, facts in found.items() for name, value in facts.items()}


def _expert(path: Path) -> dict[str, Tensor]:
    return read_expert(path, replace(inspect_expert(path).header, base_identity=None))


def _anchor(path: Path) -> Any:
    loaded = load_anchor(path, 0)
    parts = {name: (s.count, s.sum, s.outer, s.feature_kind) for name, s in loaded.stats.items()}
    return loaded.base_identity, loaded.means, parts


def _features(path: Path) -> Any:
    """A damaged entry counts as absent, and is encoded again."""
    found = FeatureFiles(path.parent.parent).read(path.stem)
    if found is None:
        raise ValueError(f"{path.name} is absent")
    return found.tokens, found.routing


def _prefix(path: Path) -> Tensor:
    """A damaged prefix counts as absent, and is computed again."""
    found = read_prefix(path)
    if found is None:
        raise ValueError(f"{path.name} is absent")
    return found


def _answers(path: Path) -> Reader:
    """A damaged answer counts as absent, and is given again; the others must be there."""
    wanted = _texts(path)

    def read(_: Path) -> Any:
        found = _texts(path)
        if any(wanted.get(key) != text for key, text in found.items()):
            return found  # used in silence
        if len(found) < len(wanted):
            raise ValueError(f"{path.name}: {len(wanted) - len(found)} answers are absent")
        return found

    return read


def _texts(path: Path) -> dict[str, str]:
    return dict(AnswerBook(path)._settled)


def _report(path: Path) -> Any:
    require_unchanged(path)
    return read_json(path)
