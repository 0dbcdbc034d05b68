"""Fixtures of the recipes."""

from pathlib import Path

import pytest

from tests.recipe.studies import small_benchmark


@pytest.fixture(scope="session")
def recipe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder per session."""
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(scope="session")
def benchmark_file(recipe_folder: Path) -> Path:
    """The small benchmark."""
    return small_benchmark(recipe_folder / "data")
