"""Build backend: setuptools for `pip install -e .`, and nothing else.

The packages are called model, data, train and evaluation. Installed as a wheel they would shadow, or be
shadowed by, every other package of that name; installed editable they are found in this checkout only.
"""

from typing import Any, NoReturn

from setuptools.build_meta import (
    build_editable,
    get_requires_for_build_editable,
    prepare_metadata_for_build_editable,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "prepare_metadata_for_build_editable",
]

MESSAGE = "avqacl-moe installs editable only: clone the repository and run `pip install -e .` in its root"


def build_wheel(*_: Any, **__: Any) -> NoReturn:
    """Raise: a wheel would put packages named model and data into site-packages."""
    raise SystemExit(MESSAGE)


def build_sdist(*_: Any, **__: Any) -> NoReturn:
    """Raise: see build_wheel."""
    raise SystemExit(MESSAGE)
