"""Pytest plugin of the parity tests: nothing recorded is left out in silence.

* Where PARITY_ROOT is set, a skipped parity test is a failure.
* After all tests of test_avqacl_moe.py or test_aoe_mtl.py the run fails if a file, tensor or JSON value of
  its recorded set was not read. (Not asked of a run that selects some of the tests.) Works over the processes
  of pytest-xdist, too.

The worst error of each kind is shown at the end.
"""

import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

HELPERS = (
    "recorded",
    "aoe_architectures",
    "aoe_fusion",
    "aoe_metrics",
    "aoe_training",
    "aoe_weightings",
    "avqacl_media",
    "avqacl_language",
    "avqacl_prompts",
    "avqacl_routing",
    "avqacl_training",
)
pytest.register_assert_rewrite(*(f"tests.parity.{name}" for name in HELPERS))

from tests.parity.recorded import Notes, recorded_names  # noqa: E402

SETS = {"test_avqacl_moe.py": "avqacl_moe", "test_aoe_mtl.py": "aoe_mtl"}  # tests -> folder they must read
DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "parity"
NOTES = pytest.StashKey[Notes]()
WHOLE = pytest.StashKey[set[str]]()  # files of which all tests are to run
UNREAD = pytest.StashKey[list[str]]()


def recorded_folder(name: str = "avqacl_moe") -> Path:
    return Path(os.environ.get("PARITY_ROOT", DEFAULT)) / name


def pytest_configure(config: pytest.Config) -> None:
    config.stash[NOTES] = Notes()
    config.stash[WHOLE] = set()
    config.stash[UNREAD] = []


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    if not config.option.collectonly and not any("::" in argument for argument in config.args):
        config.stash[WHOLE] = {item.path.name for item in items} & set(SETS)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        item.config.stash[WHOLE].discard(item.path.name)


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
        output["parity"] = (sorted(config.stash[WHOLE]), sorted(notes.read), notes.worst)
        return
    for folder in (recorded_folder(SETS[tests]) for tests in sorted(config.stash[WHOLE])):
        if folder.is_dir():
            config.stash[UNREAD] += sorted(recorded_names(folder) - notes.read)
    if config.stash[UNREAD] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    whole, read, worst = getattr(node, "workeroutput", {}).get("parity", ([], [], {}))
    node.config.stash[NOTES].merge(read, worst)
    node.config.stash[WHOLE].update(whole)


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
