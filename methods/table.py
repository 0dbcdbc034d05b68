"""The list of all methods, and choosing among them by flags. A new method is a file and a line here."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace

from data.benchmark import Benchmark
from data.folders import StudyFolders
from methods.anchor_moe import AnchorMoE
from methods.anchor_moe_autonomy import Autonomy
from methods.anchor_moe_lda import LDA
from methods.anchor_moe_published import Published
from methods.base import OURS, Method
from methods.blind import Blind
from methods.ewc import EWC
from methods.joint import Joint
from methods.l2p import LearningToPrompt
from methods.lwf import LwF
from methods.moe_lora import MoeLora
from methods.olora import OLoRA
from methods.oracle import Oracle
from methods.replay import Replay
from methods.sequential import Sequential
from methods.zero_shot import ZeroShot
from train.cells import Cell

METHODS: tuple[Method, ...] = (
    AnchorMoE(),
    Oracle(),
    Sequential(),
    Joint(),
    ZeroShot(),
    Blind(),
    Published(),
    LDA(),
    Autonomy(),
    Replay(),
    EWC(),
    LwF(),
    OLoRA(),
    MoeLora(),
    LearningToPrompt(),
)
NAMES = tuple(method.name for method in METHODS)
USUAL = tuple(method.name for method in METHODS if method.usual)


def chosen_methods(text: str | None, preset: str) -> tuple[Method, ...]:
    """The methods named, separated by spaces or commas, or "all"; without names those of the main job: the
    comparison rows are on by default for the tiny backbone only.

    Raises ValueError for an unknown name, or none at all.
    """
    if text is None:
        names: Sequence[str] = USUAL if preset == "tiny" else (OURS,)
    else:
        names = NAMES if text.strip() == "all" else tuple(text.replace(",", " ").split())
    if not names or set(names) - set(NAMES):
        raise ValueError(f"--methods: got {text!r}, expected all or some of {' '.join(NAMES)}")
    by_name = dict(zip(NAMES, METHODS, strict=True))
    return tuple(by_name[name] for name in dict.fromkeys(names))


def trained(methods: Sequence[Method]) -> tuple[Method, ...]:
    """Those that have something to train. Raises ValueError if there are none."""
    found = tuple(method for method in methods if method.trains)
    if not found:
        raise ValueError(
            f"--methods: {' '.join(method.name for method in methods)} need no training; expected some of "
            f"{' '.join(method.name for method in METHODS if method.trains)}"
        )
    return found


def study_cells(benchmark: Benchmark, methods: Sequence[Method], folders: StudyFolders) -> list[Cell]:
    """All cells of a study for one seed, in the order in which they must be trained."""
    return [cell for method in methods for cell in method.cells(benchmark, folders)]


def add_methods_flag(parser: argparse.ArgumentParser, methods: Sequence[Method] = METHODS) -> None:
    """`--methods`, of these."""
    names = [method.name for method in methods]
    usual = " ".join(name for name in names if name in USUAL)
    parser.add_argument(
        "--methods",
        help=f"space- or comma-separated, of {' '.join(names)}, or all (tiny: {usual}; else {OURS})",
    )


def add_settings_flags(parser: argparse.ArgumentParser) -> None:
    """The settings of the methods: each is a flag of its own name."""
    group = parser.add_argument_group("comparison methods (docs/methods.md)")
    for method in METHODS:
        for setting in fields(method):
            kind = type(setting.default)
            group.add_argument(f"--{setting.name}", type=kind, help=setting.metadata["help"])


def with_settings(methods: Sequence[Method], arguments: argparse.Namespace) -> tuple[Method, ...]:
    """The methods with the settings that were given. Raises ValueError for one that makes no sense."""
    made = []
    for method in methods:
        names = [setting.name for setting in fields(method)]
        given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
        made.append(replace(method, **given))
    return tuple(made)
