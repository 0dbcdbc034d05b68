"""The input embedding alone, from every container, and never with a damaged byte."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data.text_vectors import load_input_embedding
from tests.flipping import as_torch, flip_exponent
from tests.llm_folders import write_llm


@pytest.mark.parametrize("shards", [False, True])
def test_a_flipped_bit_in_a_torch_file_is_refused(tmp_path: Path, shards: bool) -> None:
    write_llm(tmp_path, "smollm2")
    embedding = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(load_input_embedding(tmp_path), embedding)
    file, largest = as_torch(tmp_path, shards=shards)
    assert torch.equal(largest, embedding)
    assert torch.equal(load_input_embedding(tmp_path), embedding)
    flip_exponent(file, embedding)
    with pytest.raises(ValueError, match=rf"{file}: .*checksum of record"):
        load_input_embedding(tmp_path)


def test_torch_files_without_checksums_load_as_before(tmp_path: Path) -> None:
    write_llm(tmp_path, "smollm2")
    _, embedding = as_torch(tmp_path, archive=False)
    assert torch.equal(load_input_embedding(tmp_path), embedding)
