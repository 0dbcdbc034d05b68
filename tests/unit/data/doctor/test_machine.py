from __future__ import annotations

from pathlib import Path

import pytest

import data.doctor.machine
from data.doctor.findings import Level, Section
from data.doctor.machine import check_disk, check_memory, free_memory, size, writable


def test_what_does_not_fit_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # a GPU's memory would be a third
    section = Section("x")
    check_memory(section, 1, "it takes")
    check_disk(section, tmp_path / "a" / "b", 1, "it takes")
    assert {finding.level for finding in section.findings} == {Level.OK}
    check_memory(section, 10**18, "it takes")
    check_disk(section, tmp_path, 10**18, "it takes")
    assert section.count(Level.PROBLEM) == 2
    assert not (tmp_path / "a").exists(), "nothing is made"


def test_limit_of_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.doctor.machine, "CGROUP", tmp_path)
    whole = free_memory()
    assert whole is not None and whole > 0
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert free_memory() == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() != 3000


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert writable(tmp_path / "new" / "folder") and not writable(tmp_path / "file")
    section = Section("x")
    check_disk(section, tmp_path / "file", 1, "it takes")
    assert section.findings[0].message.startswith("cannot be written")


def test_sizes_for_people() -> None:
    assert [size(n) for n in (12_000, 3_200_000, 13.5e9, 2e12)] == ["12 kB", "3.2 MB", "13.5 GB", "2.0 TB"]
