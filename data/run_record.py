"""run.json: what made an artifact, so that it can be repeated, skipped when finished, or refused when
changed.

A record has two parts. `identity` decides the result: settings, data hashes, base identity, seed.
`provenance` is for people: versions, commit, device, command, wall time. Only `identity` is compared.
A checksum (`crc`) tells a record in which a byte has changed; records of earlier versions have none.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from data.files import unseal, with_checksum, write_json_atomic

PACKAGES = (
    "torch",
    "torchaudio",
    "torchvision",
    "transformers",
    "accelerate",
    "deepspeed",
    "numpy",
    "safetensors",
)


def provenance(wall_seconds: float | None = None) -> dict[str, Any]:
    """Versions, commit, device and command line of this process."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "commit": _commit(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "command": sys.argv,
        "wall_seconds": wall_seconds,
    }


def _commit() -> str:
    """The checkout's commit, with '+changes' where tracked files differ; 'unknown' outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        run = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+changes", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return run.stdout.strip()


def write_record(path: Path, identity: dict[str, Any], **provenance_and_notes: Any) -> None:
    """Write a record and its checksum atomically."""
    plain = json.loads(json.dumps({"identity": identity, **provenance_and_notes}))  # as it will be read
    write_json_atomic(path, with_checksum(plain))


def read_record(path: Path) -> dict[str, Any]:
    """A record without its checksum. Raises ValueError for a damaged file, OSError for a missing one."""
    try:
        return unseal(path.read_bytes())[0]
    except ValueError as error:
        raise ValueError(
            f"{path}: damaged run record ({error}); put the original back, or delete it with what it is the "
            "record of, to have that made anew"
        ) from error


def read_identity(path: Path) -> dict[str, Any] | None:
    """The identity part of a record, None where there is no record. Raises ValueError for a damaged file, or
    one of another shape."""
    if not path.is_file():
        return None
    record = read_record(path)
    if not isinstance(record.get("identity"), dict):
        raise ValueError(
            f"{path}: expected a run record with an 'identity'; delete it or choose another output folder"
        )
    return record["identity"]


def differing_keys(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines 'key: was X, is Y' for every key whose value differs, nested keys joined by dots."""
    lines = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differing_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: was {before!r}, is {after!r}")
    return lines
