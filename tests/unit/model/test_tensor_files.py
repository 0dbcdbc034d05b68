"""Safe reading of weights, and digests."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.tensor_files import (
    check_model_folder,
    digest_tensors,
    read_json,
    read_plain,
    read_tensors,
    read_weights,
)
from tests.flipping import flip_exponent


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("must_not_exist",)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.float16)}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in expected.items())


def test_containers_give_the_same(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, tmp_path / "t.safetensors")
    torch.save(tensors, tmp_path / "t.pt")
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("t.safetensors", "t.pt", "old.pt"):
        assert_same(read_tensors(tmp_path / name), tensors)


def test_folders_single_and_sharded(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    assert_same(read_weights(tmp_path), tensors)
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    for key, value in tensors.items():
        torch.save({key: value}, sharded / f"{key}.bin")
    index = sharded / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "a.bin", "b": "b.bin"}}))
    assert_same(read_weights(sharded), tensors)
    index.write_text(json.dumps({"weight_map": {"a": "a.bin", "b": "b.bin", "c": "a.bin"}}))
    with pytest.raises(ValueError, match=r"missing \['c'\]"):
        read_weights(sharded)
    index.write_text(json.dumps({"weight_map": {"a": "a.bin", "b": "x.bin", "c": "y.bin"}}))
    with pytest.raises(ValueError, match=r"2 of 3 weight files are missing: x\.bin, y\.bin"):
        read_weights(sharded)
    index.write_text("{}")
    with pytest.raises(ValueError, match="weight_map"):
        read_weights(sharded)
    with pytest.raises(ValueError, match="no weights found"):
        read_weights(tmp_path / "nowhere")


def test_only_the_torch_files_that_are_read_are_checked(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    check_model_folder(tmp_path)
    flip_exponent(tmp_path / "pytorch_model.bin", tensors["a"])
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: .*checksum of record"):
        check_model_folder(tmp_path)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: .*checksum of record"):
        read_weights(tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    check_model_folder(tmp_path)  # the other file is not read


def test_unusable_files_are_refused_by_name(
    tmp_path: Path, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(tensors, "good.pt")
    save_file(tensors, "good.safetensors")
    for name in ("good.pt", "good.safetensors"):
        content = Path(name).read_bytes()
        for part, size in (("half", len(content) // 2), ("nearly", len(content) - 1), ("none", 0)):
            cut = name.replace("good", part)
            Path(cut).write_bytes(content[:size])
            with pytest.raises(ValueError, match=f"{part}.*truncated"):
                read_tensors(cut)
        with pytest.raises(ValueError, match="no such file"):
            read_tensors(name.replace("good", "absent"))
    torch.save({"a": Payload()}, "code.pt")
    with pytest.raises(ValueError, match=r"code\.pt.*carrying code"):
        read_plain("code.pt")
    assert not Path("must_not_exist").exists()
    torch.save({"a": 3}, "number.pt")
    with pytest.raises(ValueError, match=r"number\.pt: expected a dict of tensors"):
        read_tensors("number.pt")


def test_json_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    with pytest.raises(ValueError, match=r"c\.json: no such file"):
        read_json(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"c\.json: expected a JSON object, got list"):
        read_json(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"c\.json: not valid JSON"):
        read_json(path)


def test_digest_sees_names_shapes_values_and_note_but_not_dtype_or_order(
    tensors: dict[str, torch.Tensor],
) -> None:
    base = digest_tensors(tensors)
    assert digest_tensors({k: v.double() for k, v in reversed(tensors.items())}) == base
    assert digest_tensors(tensors, "x") != base
    assert digest_tensors({"a": tensors["a"].view(3, 2), "b": tensors["b"]}) != base
    assert digest_tensors({"a": tensors["a"], "c": tensors["b"]}) != base
    for place in (0, 5):  # first and last entry are always sampled
        changed = tensors["a"].clone()
        changed.view(-1)[place] += 1
        assert digest_tensors({**tensors, "a": changed}) != base
    assert digest_tensors({"empty": torch.zeros(0), "scalar": torch.tensor(1.0)}) != base
