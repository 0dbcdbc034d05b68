"""A changed byte in a .pt file is found, code is not run, and nothing is bigger than its file."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from model.moe.files import read_tensor_file
from model.moe.pt_files import check_archive, load_pt
from model.tensor_files import read_plain

VALUES = torch.arange(1000.0)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "expert.pt"
    torch.save({"a": VALUES, "expert": {"rank": 4}}, path)
    return path


def flip(path: Path, inside: bytes) -> None:
    """Flip one bit in the middle of these bytes of a file."""
    content = bytearray(path.read_bytes())
    content[content.index(inside) + len(inside) // 2] ^= 1
    path.write_bytes(content)


def test_torch_itself_uses_a_flipped_bit(saved: Path) -> None:
    flip(saved, VALUES.numpy().tobytes())
    assert not torch.equal(torch.load(saved, weights_only=True)["a"], VALUES)  # else pt_files.py can go


@pytest.mark.parametrize("read", [load_pt, read_plain, read_tensor_file])
def test_a_flipped_bit_in_a_tensor_is_found(saved: Path, read: object) -> None:
    assert torch.equal(read(saved)["a"], VALUES)  # type: ignore[operator]
    flip(saved, VALUES.numpy().tobytes())
    with pytest.raises(ValueError, match="checksum of record expert/data/0 does not fit"):
        read(saved)  # type: ignore[operator]


def test_keys_can_be_looked_at_without_reading_the_tensors(saved: Path) -> None:
    flip(saved, VALUES.numpy().tobytes())
    assert set(read_tensor_file(saved, mmap=True)) == {"a", "expert"}
    flip(saved, b"rank")
    with pytest.raises(ValueError, match=r"checksum of record expert/data.pkl"):
        read_tensor_file(saved, mmap=True)


def test_files_that_were_saved_without_checksums_load(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": VALUES}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load_pt(tmp_path / "a.pt")["a"], VALUES)


def test_compressed_records_are_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="announce more than|is compressed"):
        check_archive(saved)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    "value", [torch.zeros(1).expand(2**40), torch.empty(2, device="meta"), torch.eye(3).to_sparse()]
)
def test_a_tensor_that_is_more_than_its_bytes_is_refused(tmp_path: Path, value: torch.Tensor) -> None:
    torch.save({"a": value}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="is not held by the file's bytes"):
        load_pt(tmp_path / "a.pt")


class Shout:
    """A pickle that would run code."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.place)!r}, 'w')",)


@pytest.mark.parametrize("archive", [True, False])
def test_code_is_not_run(tmp_path: Path, archive: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": Shout(tmp_path / "ran")}, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(pickle.UnpicklingError):
        load_pt(path)
    for read in (read_plain, read_tensor_file):
        with pytest.raises(ValueError, match=r"a\.pt: "):
            read(path)
    assert not (tmp_path / "ran").exists()
