"""Atomic writing, so that a reader never sees a part of a file. Needs no torch."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes `path` when the block ends without an error.

    The bytes go to `.NAME.tmp` in the same folder, are flushed to disk and renamed; the folder entry is
    flushed too. The name is fixed so that a killed process leaves at most one such file, which the next try
    overwrites.

    Raises:
        OSError: the folder cannot be written or the disk is full; an existing `path` is untouched.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        _discard(partial)
        cause = error if isinstance(error, OSError) else error.__context__  # torch closes its archive anew
        if not isinstance(cause, OSError):
            raise
        raise OSError(
            cause.errno, f"{path}: not saved ({cause.strerror or cause}); what was there is untouched"
        ) from error
    except BaseException:
        _discard(partial)
        raise
    _flush_folder(path.parent)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Errors of the system that name no file, as those of writes to an open one, name this; where space is
    what lacks, with what to do.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        advice = "; free some space and start again" if error.errno in NO_SPACE else ""
        raise OSError(error.errno, f"{error.strerror}{advice}", str(path)) from error


def _discard(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot flush a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
