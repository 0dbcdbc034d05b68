"""Pytest plugin of the parity tests: nothing recorded is left out in silence.

* Where PARITY_ROOT is set, a skipped parity test is a failure.
* After all tests of test_avqacl_moe.py the run fails if a recorded file, tensor or JSON value was not read.
  (Not asked of a run that selects some of them.) Works over the processes of pytest-xdist, too.

The worst error of each kind is shown at the end.
"""

import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

HELPERS = (
    "recorded",
    "avqacl_media",
    "avqacl_language",
    "avqacl_prompts",
    "avqacl_routing",
    "avqacl_training",
)
pytest.register_assert_rewrite(*(f"tests.parity.{name}" for name in HELPERS))

from tests.parity.recorded import Notes, recorded_names  # noqa: E402

TESTS = "test_avqacl_moe.py"
DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "parity"
NOTES = pytest.StashKey[Notes]()
WHOLE = pytest.StashKey[bool]()  # whether all tests of the file are to run
UNREAD = pytest.StashKey[list[str]]()


def recorded_folder() -> Path:
    return Path(os.environ.get("PARITY_ROOT", DEFAULT)) / "avqacl_moe"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[NOTES] = Notes()
    config.stash[WHOLE] = False
    config.stash[UNREAD] = []


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    here = any(item.path.name == TESTS for item in items) and not config.option.collectonly
    config.stash[WHOLE] = here and not any("::" in argument for argument in config.args)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if item.path.name == TESTS:
            item.config.stash[WHOLE] = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and "PARITY_ROOT" in os.environ and item.path.parent == Path(__file__).parent:
        report.outcome = "failed"
        report.longrepr = f"skipped, though PARITY_ROOT is set: {report.longrepr}"
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    notes = config.stash[NOTES]
    output = getattr(config, "workeroutput", None)
    if output is not None:  # a process of xdist: the controller looks at all of them together
        output["parity"] = (config.stash[WHOLE], sorted(notes.read), notes.worst)
        return
    if config.stash[WHOLE] and recorded_folder().is_dir():
        config.stash[UNREAD] = sorted(recorded_names(recorded_folder()) - notes.read)
        if config.stash[UNREAD] and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    whole, read, worst = getattr(node, "workeroutput", {}).get("parity", (False, [], {}))
    node.config.stash[NOTES].merge(read, worst)
    node.config.stash[WHOLE] |= whole


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    notes, unread = config.stash[NOTES], config.stash[UNREAD]
    if notes.worst:
        terminalreporter.section("worst errors against the recorded values")
        for kind, error in sorted(notes.worst.items()):
            terminalreporter.write_line(f"{error:.1e}  {kind}")
    if unread:
        terminalreporter.section("FAILED: recorded, but read by no test", red=True)
        for name in unread:
            terminalreporter.write_line(name)
