"""Alias files: what a benchmark accepts beside its answers as written, for normalised match.

    {"airplane": ["plane", "aeroplane"], "2": ["a pair"]}

The file of the benchmark DIR/NAME.json is DIR/NAME.aliases.json; without one nothing is accepted beside.
"""

from __future__ import annotations

from pathlib import Path

from data.benchmark import read_json
from data.problems import InputError, Problem, brief
from evaluation.scoring.normalised import Aliases


def alias_file(benchmark: Path) -> Path | None:
    """The alias file of a benchmark file, None if it has none."""
    path = benchmark.with_suffix(".aliases.json")
    return path if path.is_file() else None


def read_aliases(path: Path | None) -> Aliases:
    """Read and check an alias file; None gives no aliases.

    Raises:
        InputError: not JSON, of another shape, or an accepted text that is empty or stands for two answers.
    """
    if path is None:
        return Aliases()
    content = read_json(path)
    problems = []
    if not isinstance(content, dict):
        problems.append(Problem(path, f'got {brief(content)}, expected {{"ANSWER": ["ACCEPTED", ...], ...}}'))
        content = {}
    for index, (answer, spellings) in enumerate(content.items()):
        if not isinstance(spellings, list) or not all(isinstance(text, str) for text in spellings):
            message = f"answer {answer!r}: got {brief(spellings)}, expected a list of texts"
            problems.append(Problem(path, message, index))
    if problems:
        raise InputError(problems)
    try:
        return Aliases.from_lists(content)
    except ValueError as error:
        raise InputError([Problem(path, str(error))]) from None
