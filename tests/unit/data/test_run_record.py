"""Records say what decided a result, and what differs."""

from pathlib import Path

import pytest

from data.run_record import differing_keys, provenance, read_identity, write_record


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
    with pytest.raises(ValueError, match=r"run\.json: (expected.*or choose another output|not readable)"):
        read_identity(tmp_path / "run.json")


def test_provenance_names_versions_and_device() -> None:
    record = provenance()
    assert record["versions"]["torch"][0].isdigit()
    assert record["device"] and record["commit"]
