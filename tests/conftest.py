"""What all tests share: quiet, offline, one thread a process, and where the recorded values lie."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before torch or transformers is imported by a test module.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# No time limits: a busy machine is no failure. Continuous integration draws the same examples every time.
settings.register_profile(
    "project", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")

ROOT = Path(__file__).resolve().parent.parent
pytest_plugins = ["tests.parity.completeness"]


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A command that runs within a test sets up logging: that must not reach the tests after it."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = [handler for handler in root.handlers if handler in handlers]


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of this checkout."""
    return ROOT


@pytest.fixture(scope="session")
def parity_root() -> Path:
    """Folder of recorded reference values: PARITY_ROOT, default ../shared/parity; skips where absent."""
    root = Path(os.environ.get("PARITY_ROOT", ROOT.parent / "shared" / "parity"))
    if not root.is_dir():
        pytest.skip(f"no recorded values at {root} (set PARITY_ROOT)")
    return root


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real media and annotations: SHARED_DATA, default ../shared/data; skips where absent."""
    root = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no shared data at {root} (set SHARED_DATA)")
    return root
