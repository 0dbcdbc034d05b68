"""The repository's Python commands in forked processes, which need not import anew what is there."""

from __future__ import annotations

import contextlib
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]


def run_python(
    script: str,
    *flags: object,
    check: bool = True,
    variables: Mapping[str, str] | None = None,
    first: Callable[[], object] = lambda: None,
) -> subprocess.CompletedProcess[str]:
    """Run a file of the repository as `python FILE FLAGS` would, from the root, to its end.

    Only the interpreter's start is not new: the process is a fork of this one. The drivers and a few commands
    are started afresh by other recipes.

    Args:
        check: fail with what it printed unless its exit status is 0.
        variables: environment variables to add.
        first: what the new process does before the file runs.
    """
    line = [script, *map(str, flags)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become(line, out, err, variables or {}, first)
        _, status = os.waitpid(pid, 0)
        out.seek(0)
        err.seek(0)
        done = subprocess.CompletedProcess(line, os.waitstatus_to_exitcode(status), out.read(), err.read())
    assert not check or done.returncode == 0, f"{script} failed:\n{done.stdout}\n{done.stderr}"
    return done


def _become(
    line: list[str], out: IO[str], err: IO[str], variables: Mapping[str, str], first: Callable[[], object]
) -> None:
    """The forked process: streams, folder, arguments and warnings of a new one; it does not return."""
    status = 70
    try:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(ROOT)
        os.environ.update(variables)
        sys.argv = line
        warnings.resetwarnings()
        first()
        runpy.run_path(line[0], run_name="__main__")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
