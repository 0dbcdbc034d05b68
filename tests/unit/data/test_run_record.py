"""Records say what decided a result, and what differs."""

import json
from pathlib import Path

import pytest

from data.run_record import differing_keys, provenance, read_identity, read_record, write_record


def test_identity_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    assert read_identity(path) is None
    write_record(path, {"seed": 1}, provenance=provenance(2.5))
    assert read_identity(path) == {"seed": 1}


def test_differences_are_named_with_both_values() -> None:
    old = {"config": {"lr": 0.1, "epochs": 5}, "seed": 0, "gone": 1}
    new = {"config": {"lr": 0.2, "epochs": 5}, "seed": 0, "came": 2}
    lines = differing_keys(old, new)
    assert lines == ["came: was None, is 2", "config.lr: was 0.1, is 0.2", "gone: was 1, is None"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"identity": 3}', "{"])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json: (expected.*another output|damaged run record)"):
        read_identity(tmp_path / "run.json")


def test_a_changed_byte_is_never_used(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_record(
        path, {"seed": 1, "name": "\u00fc", 2: (3,)}, training={"seconds": 12.5}, files={"a.pt": "0f"}
    )
    good, wanted = path.read_bytes(), read_record(path)
    assert wanted["training"] == {"seconds": 12.5} and wanted["identity"]["2"] == [3]
    found = 0
    for place in range(len(good)):
        for bit in range(8):
            flipped = bytearray(good)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                got = read_record(path)
            except ValueError as error:
                assert "run.json: damaged run record" in str(error)
                found += 1
            else:
                assert {key: got.get(key) for key in wanted} == wanted, (place, bit)
    assert found > 7 * len(good)
    path.write_bytes(good.replace(b"12.5", b"13.5"))
    with pytest.raises(ValueError, match=r"run\.json: damaged run record \(the checksum does not fit"):
        read_identity(path)


def test_records_without_a_checksum_are_read_as_before(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"identity": {"seed": 1}, "files": {}}))
    assert read_record(tmp_path / "run.json") == {"identity": {"seed": 1}, "files": {}}


def test_provenance_names_versions_and_device() -> None:
    record = provenance()
    assert record["versions"]["torch"][0].isdigit()
    assert record["device"] and record["commit"]
