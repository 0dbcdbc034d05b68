"""The floors of the house: imports run downwards only, and nobody imports a command."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("model", "data", "train", "evaluation", "methods")
COMMAND_FOLDERS = ("scripts", "examples")
AUDIO_VISUAL = ("model.language_model", "model.encoders")
LLM_FAMILY_FILES = ("model.language_model.backbone", "model.language_model.families")

# What a floor may import of this project; the longest matching prefix of a module's name is its floor.
FLOORS: dict[str, tuple[str, ...]] = {
    "model": ("model",),
    "model.moe": ("model.moe",),
    "model.mtl": ("model.mtl", "model.moe.autonomy"),
    "data": ("data", "model"),
    "evaluation.scoring": ("evaluation.scoring",),
    "evaluation": ("evaluation", "data", "model"),
    "train": ("train", "data", "model"),
    "methods": ("methods", "train", "evaluation", "data", "model"),
}
COMMANDS_MAY_IMPORT = PACKAGES
# Third-party packages, where a floor is held to a few.
OUTSIDE: dict[str, tuple[str, ...]] = {
    "model.moe": ("torch", "numpy", "safetensors"),
    "model.mtl": ("torch", "torchvision", "numpy"),
    "evaluation.scoring": ("numpy",),
}


def module_name(path: Path) -> str:
    """model/moe/experts.py -> model.moe.experts; a package's __init__.py has the package's name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[str, ast.Module]:
    """Module name -> syntax tree of every source file of the packages and of the commands."""
    paths = [path for name in (*PACKAGES, *COMMAND_FOLDERS) for path in (ROOT / name).rglob("*.py")]
    return {
        module_name(path): ast.parse(path.read_text(), str(path)) for path in [*paths, *ROOT.glob("*.py")]
    }


def imports(name: str, tree: ast.Module) -> Iterator[str]:
    """Full dotted names of what a module imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            is_package = (ROOT / Path(*name.split(".")) / "__init__.py").is_file()
            parent = name.split(".")[: len(name.split(".")) - node.level + is_package] if node.level else []
            origin = ".".join([*parent, *filter(None, [node.module])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def is_command(name: str, tree: ast.Module) -> bool:
    """Whether the module is run by people: it has `if __name__ == "__main__":`, or lies with the scripts."""
    guards = (node.test for node in tree.body if isinstance(node, ast.If))
    return any("__main__" in ast.unparse(guard) for guard in guards) or name.split(".")[0] in COMMAND_FOLDERS


def floor_of(name: str) -> str:
    return max((prefix for prefix in FLOORS if below(name, prefix)), key=len)


def modules(*prefixes: str) -> list[str]:
    return sorted(name for name in sources() if any(below(name, prefix) for prefix in prefixes))


@pytest.mark.parametrize("name", modules(*PACKAGES))
def test_imports_run_downwards(name: str) -> None:
    tree = sources()[name]
    allowed = COMMANDS_MAY_IMPORT if is_command(name, tree) else FLOORS[floor_of(name)]
    ours = [
        used for used in imports(name, tree) if used.split(".")[0] in (*PACKAGES, *COMMAND_FOLDERS, "tests")
    ]
    wrong = [used for used in ours if not any(below(used, prefix) for prefix in allowed)]
    assert not wrong, f"{name} may import {', '.join(allowed)}"


@pytest.mark.parametrize("name", modules(*OUTSIDE))
def test_lower_floors_need_few_packages(name: str) -> None:
    allowed = {*OUTSIDE[floor_of(name)], *sys.stdlib_module_names, *PACKAGES}
    wrong = [used for used in imports(name, sources()[name]) if used.split(".")[0] not in allowed]
    assert not wrong, f"{floor_of(name)} needs {', '.join(OUTSIDE[floor_of(name)])} only"


def test_nobody_imports_a_command() -> None:
    commands = {
        name for name, tree in sources().items() if name.split(".")[0] in PACKAGES and is_command(name, tree)
    }
    commands |= {path.stem for path in ROOT.glob("*.py")}
    wrong = [
        (name, used)
        for name, tree in sources().items()
        for used in imports(name, tree)
        if any(below(used, command) for command in commands)
    ]
    assert not wrong


def needed(name: str) -> set[str]:
    """All modules of this project that importing one brings in, packages included."""
    found, waiting = {name}, [name]
    while waiting:
        last = waiting.pop()
        parts = [used.split(".") for used in imports(last, sources()[last])]
        names = {".".join(used[:length]) for used in parts for length in range(1, len(used) + 1)}
        new = {used for used in names if used in sources()} - found
        found |= new
        waiting += new
    return found


@pytest.mark.parametrize("name", modules("examples.nyu"))
def test_multi_task_learning_is_independent_of_the_language_model(name: str) -> None:
    wrong = [m for m in needed(name) for prefix in AUDIO_VISUAL if below(m, prefix)]
    assert not wrong, "main_command is in data.manners, too"


@pytest.mark.parametrize("name", modules("model"))
def test_model_parses_no_arguments(name: str) -> None:
    assert not {"argparse", "sys.argv", "transformers.HfArgumentParser"} & set(imports(name, sources()[name]))


@pytest.mark.parametrize("name", modules(*PACKAGES))
def test_import_path_is_left_alone(name: str) -> None:
    """Only a command run as a file puts the repository's root in place of its own folder."""
    if is_command(name, sources()[name]):
        return
    edits = [node for node in ast.walk(sources()[name]) if isinstance(node, ast.Attribute)]
    assert "sys.path" not in {ast.unparse(node) for node in edits}


@pytest.mark.parametrize("name", [name for name in modules(*PACKAGES) if name not in LLM_FAMILY_FILES])
def test_two_files_know_the_family_of_the_llm(name: str) -> None:
    tree = sources()[name]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented)
    }
    words = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    words += [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    words += list(imports(name, tree))
    found = [
        word
        for word in words
        if word not in docstrings and ("llama" in word.lower() or "llava" in word.lower())
    ]
    assert not found, f"LLaMA and LLaVA names belong in {' and '.join(LLM_FAMILY_FILES)}"


def test_the_walk_sees_the_house() -> None:
    """Guards the tests above: an empty walk would pass them all."""
    names = set(sources())
    assert {"model.moe.experts", "data.samples", "evaluation.scoring.continual", "evaluation.report"} <= names
    assert "numpy" in {used.split(".")[0] for used in imports("x", sources()["evaluation.scoring.continual"])}
    assert {"model.encoders", "model.language_model.backbone"} <= needed("data.command_line")
    assert "examples.nyu.main" in names and "train.mtl.backward" in needed("examples.nyu.main")
    relative = ast.parse("from . import b\nfrom .c import d\nfrom ..e import f")
    assert list(imports("model.moe.a", relative)) == ["model.moe.b", "model.moe.c.d", "model.e.f"]
