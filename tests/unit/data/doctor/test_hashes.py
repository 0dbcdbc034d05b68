from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from data.doctor.findings import Level, Section
from data.doctor.hashes import Reference, check_hashes, find_reference
from data.media_index import MediaIndex

CONTENT = b"weights"
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "base" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def levels(files: list[Path], **options: object) -> list[Level]:
    section = Section("x")
    check_hashes(section, files, MediaIndex(None), **options)  # type: ignore[arg-type]
    return [finding.level for finding in section.findings]


def test_without_a_reference_nothing_is_hashed(file: Path, tmp_path: Path) -> None:
    index = MediaIndex(tmp_path / "index.jsonl")
    section = Section("x")
    check_hashes(section, [file], index)
    assert [finding.level for finding in section.findings] == [Level.NOTE]
    assert not index.path or not index.path.exists()
    check_hashes(section, [file], index, hash_all=True)
    assert section.facts["sha256"] == {str(file): SHA}


@pytest.mark.parametrize("line", [f"{SHA}  base/model.safetensors", f"{SHA} *./base/model.safetensors"])
def test_sums_file_above(file: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  other.bin\n{line}\n")
    assert levels([file]) == [Level.OK]
    file.write_bytes(b"Weights")
    assert levels([file]) == [Level.PROBLEM]


def test_record_of_a_download(file: Path) -> None:
    record = file.parent / ".cache" / "huggingface" / "download" / "model.safetensors.metadata"
    record.parent.mkdir(parents=True)
    record.write_text(f"{'a' * 40}\n{'b' * 40}\n1.0\n")
    assert find_reference(file) is None, "a git hash of a small file is no SHA-256"
    record.write_text(f"{'a' * 40}\n{SHA}\n1.0\n")
    assert find_reference(file) == Reference(SHA, "Hugging Face download record")


def test_link_into_the_cache(file: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / SHA
    blob.parent.mkdir()
    blob.write_bytes(CONTENT)
    file.unlink()
    file.symlink_to(blob)
    assert find_reference(file) == Reference(SHA, "Hugging Face cache")
    assert levels([file]) == [Level.OK]


def test_references_given(file: Path) -> None:
    assert levels([file], known={file: Reference("0" * 64, "run record")}) == [Level.PROBLEM]
