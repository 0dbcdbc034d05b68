"""What a benchmark's module says about it, and which benchmarks there are."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from data.benchmark import SPLITS
from data.benchmarks.items import Parser
from data.problems import InputError, Problem


@dataclass(frozen=True)
class TaskPlan:
    """One task of a recipe."""

    key: str  # in file names and in `Item.task`: Come_From
    name: str  # in reports: Come


@dataclass(frozen=True)
class Recipe:
    """How the annotations of a benchmark are found and read."""

    title: str  # name in the benchmark file
    tasks: tuple[TaskPlan, ...]  # in the order in which they are learned
    parse: Parser
    id_key: str  # field that holds an item's id
    # Names of the files that hold a split of all tasks. Files SPLIT_TASK.json of single tasks come first.
    whole_files: Mapping[str, tuple[str, ...]]
    # Split -> known number of questions per task about recorded clips; None where none is known.
    known: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    halve_val: bool = False  # without a test file, half of the clips of val are the test
    # Answer -> other spellings of it that normalised match accepts: see docs/scoring.md.
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """An annotation file."""

    path: Path
    task: str | None  # key of its task, None: holds all tasks


def recipe_names() -> list[str]:
    """Names of all benchmarks: the modules of this package that hold a RECIPE."""
    package = import_module(__package__)
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return [name for name in names if hasattr(import_module(f"{__package__}.{name}"), "RECIPE")]


def load_recipe(name: str) -> Recipe:
    """The recipe of a benchmark. Raises ValueError where there is none of this name."""
    if name not in recipe_names():
        raise ValueError(f"no benchmark {name!r}; there are {', '.join(recipe_names())}")
    recipe = import_module(f"{__package__}.{name}").RECIPE
    assert isinstance(recipe, Recipe), f"RECIPE of {name} is a {type(recipe).__name__}"
    return recipe


def find_sources(recipe: Recipe, folder: Path) -> dict[str, list[Source]]:
    """Split -> its annotation files in a folder, without the splits that have none.

    Raises:
        InputError: no annotation file, or several that each hold the same split of all tasks.
    """
    found: dict[str, list[Source]] = {}
    for split in SPLITS:
        single = [Source(folder / f"{split}_{task.key}.json", task.key) for task in recipe.tasks]
        single = [source for source in single if source.path.is_file()]
        whole = [folder / name for name in recipe.whole_files[split] if (folder / name).is_file()]
        if len(whole) > 1 and not single:
            names = " and ".join(path.name for path in whole)
            raise InputError([Problem(folder, f"got {names} for {split}, expected one; move the others")])
        if single or whole:
            found[split] = single or [Source(whole[0], None)]
    if not found:
        names = ", ".join(name for split in SPLITS for name in recipe.whole_files[split])
        tasks = "{" + ",".join(task.key for task in recipe.tasks) + "}"
        expected = f"{names}, or {{{','.join(SPLITS)}}}_{tasks}.json"
        got = "no such folder" if not folder.is_dir() else "no annotation file here"
        raise InputError([Problem(folder, f"{got}; expected {expected}")])
    return found
