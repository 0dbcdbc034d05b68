"""scripts/environment.sh against a stand-in for Python that records its calls: nothing is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A Python that can make environments of itself, install, and tell whether it fits: it does once installed.
STAND_IN = """#!/usr/bin/env bash
here="$(dirname "$0")"
case "$*" in
    *"-m venv "*) mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python"; echo venv >>"$CALLS" ;;
    *"-m pip install"*)
        echo "pip ${@: -1}" >>"$CALLS"
        sleep "${SLOW:-0}"
        [ -z "${BROKEN:-}" ] || { echo "no space left on device"; exit 1; }
        touch "$here/fits" ;;
    *check_environment.py*)
        [ -e "$here/fits" ] && exit 0
        case "$*" in *--quiet*) ;; *) echo "torch is missing (torch>=2)" ;; esac
        exit 1 ;;
    *version_info*) [ -z "${OLD:-}" ] ;;
    *--version*) echo "Python 3.99" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository root with the script, a pyproject.toml, and a bin folder with the stand-in."""
    (tmp_path / "repo" / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "environment.sh", tmp_path / "repo" / "scripts")
    (tmp_path / "repo" / "pyproject.toml").write_text("[project]\n")
    make_python(tmp_path / "bin" / "python3")
    return tmp_path / "repo"


def make_python(path: Path, *, fits: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STAND_IN)
    path.chmod(0o755)
    if fits:
        (path.parent / "fits").touch()
    return path


def start(checkout: Path, extra: str = "", **settings: str) -> "subprocess.Popen[str]":
    keep = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "PYTHONPATH")}
    search = f"{checkout.parent / 'bin'}:/usr/bin:/bin"
    environment = {**keep, "PATH": search, "CALLS": str(checkout.parent / "calls"), **settings}
    command = f'source scripts/environment.sh; use_environment {extra} || exit 1; echo "$PYTHON|$PYTHONPATH"'
    return subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=checkout, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def use(checkout: Path, extra: str = "", **settings: str) -> tuple[int, str, str]:
    """Exit status, the line of stdout, stderr."""
    process = start(checkout, extra, **settings)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout.strip(), stderr


def calls(checkout: Path) -> list[str]:
    path = checkout.parent / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_active_environment_that_fits_is_used(checkout: Path) -> None:
    active = make_python(checkout.parent / "bin" / "python3", fits=True)
    assert use(checkout) == (0, f"{active}|{checkout}", "")
    assert calls(checkout) == [] and not (checkout / ".venv").exists()


def test_makes_venv_once(checkout: Path) -> None:
    status, line, stderr = use(checkout, "dev")
    assert (status, line) == (0, f"{checkout}/.venv/bin/python|{checkout}")
    assert "making .venv" in stderr and ".venv is ready" in stderr
    assert use(checkout, "dev") == (0, line, "")
    assert use(checkout) == (0, line, "")  # dev has everything
    assert calls(checkout) == ["venv", "pip .[dev]"]


def test_tests_need_more_than_the_main_job(checkout: Path) -> None:
    use(checkout)
    use(checkout, "dev")
    assert calls(checkout) == ["venv", "pip .", "pip .[dev]"]


def test_changed_requirements_update_venv(checkout: Path) -> None:
    use(checkout)
    (checkout / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    status, _, stderr = use(checkout)
    assert status == 0 and "updating .venv" in stderr
    assert calls(checkout) == ["venv", "pip .", "pip ."]


def test_failed_installation_is_told_and_made_anew(checkout: Path) -> None:
    status, line, stderr = use(checkout, BROKEN="yes")
    assert (status, line) == (1, "") and "pip failed" in stderr and "no space left on device" in stderr
    (checkout / ".venv" / "leftover").touch()
    status, _, stderr = use(checkout)
    assert status == 0 and "making it anew" in stderr
    assert not (checkout / ".venv" / "leftover").exists()


def test_two_at_once_install_once(checkout: Path) -> None:
    both = [start(checkout, SLOW="1") for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert outputs[0] == outputs[1] != ""
    assert calls(checkout) == ["venv", "pip ."]


def test_venv_whose_python_is_gone_is_made_anew(checkout: Path) -> None:
    use(checkout)
    (checkout / ".venv" / "bin" / "python").unlink()
    status, _, stderr = use(checkout)
    assert status == 0 and "making it anew" in stderr


def test_venv_of_the_user_is_kept(checkout: Path) -> None:
    make_python(checkout / ".venv" / "bin" / "python")
    (checkout / ".venv" / "mine").touch()
    assert use(checkout)[0] == 0
    assert (checkout / ".venv" / "mine").exists() and calls(checkout) == ["pip ."]


def test_explicit_python_is_obeyed(checkout: Path) -> None:
    chosen = make_python(checkout.parent / "other" / "python", fits=True)
    make_python(checkout.parent / "bin" / "python3", fits=True)
    assert use(checkout, PYTHON=str(chosen))[1] == f"{chosen}|{checkout}"


def test_explicit_python_that_does_not_fit_is_an_error(checkout: Path) -> None:
    chosen = make_python(checkout.parent / "other" / "python")
    status, line, stderr = use(checkout, PYTHON=str(chosen))
    assert (status, line) == (1, "") and "torch is missing" in stderr and "pip install -e" in stderr
    status, _, stderr = use(checkout, PYTHON="/nowhere/python")
    assert status == 1 and "/nowhere/python cannot be run" in stderr
    assert calls(checkout) == []


def test_active_environment_that_does_not_fit_is_left_alone(checkout: Path) -> None:
    status, line, stderr = use(checkout, VIRTUAL_ENV="/some/env")
    assert status == 0 and line.startswith(f"{checkout}/.venv/")
    assert "the active environment does not fit (torch is missing (torch>=2))" in stderr


def test_import_path_of_the_user_is_kept(checkout: Path) -> None:
    make_python(checkout.parent / "bin" / "python3", fits=True)
    assert use(checkout, PYTHONPATH="/mine")[1].endswith(f"|{checkout}:/mine")


def test_old_python_is_an_error(checkout: Path) -> None:
    for name in ("python", *(f"python3.{minor}" for minor in range(10, 15))):
        make_python(checkout.parent / "bin" / name)
    status, _, stderr = use(checkout, OLD="yes")
    assert status == 1 and "no Python 3.10 or newer" in stderr
    assert not (checkout / ".venv").exists()
