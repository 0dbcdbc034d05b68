"""One line for each way in which a checkpoint file can be no good, and nothing in it is run."""

import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.file_faults import byte_fault, is_partial
from model.tensor_files import read_plain


class Payload:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("must_not_exist",)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def good(name: str) -> bytes:
    tensors = {"w": torch.arange(1000.0)}
    if name.endswith(".safetensors"):
        save_file(tensors, name)
    else:
        torch.save(tensors, name, _use_new_zipfile_serialization="old" not in name)
    return Path(name).read_bytes()


@pytest.mark.parametrize("name", ["a.pt", "a.bin", "old.pt", "a.safetensors"])
def test_good_files_have_no_fault(name: str) -> None:
    good(name)
    assert byte_fault(Path(name)) is None


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_cut_files_are_truncated(name: str, share: float) -> None:
    content = good(name)
    Path(name).write_bytes(content[: int(share * len(content))])
    assert "truncated" in str(byte_fault(Path(name)))


def test_a_cut_file_of_the_old_kind_is_found_on_reading() -> None:
    content = good("old.pt")
    Path("old.pt").write_bytes(content[:-300])
    assert byte_fault(Path("old.pt")) is None
    with pytest.raises(ValueError, match=r"old\.pt: truncated or damaged"):
        read_plain("old.pt")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "config.json", "tokenizer.model"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 499723\n",
            "git-lfs.*499723 bytes",
        ),
        (b"\n <!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "error message"),
        (bytes(5000), "begins with zeros"),
    ],
)
def test_what_lies_in_place_of_the_file(name: str, content: bytes, said: str) -> None:
    Path(name).write_bytes(content)
    fault = byte_fault(Path(name))
    assert fault is not None and "\n" not in fault
    assert re.search(said, fault)


def test_a_container_under_the_name_of_another() -> None:
    good("a.safetensors")
    Path("a.safetensors").rename("b.bin")
    assert "rename it to b.safetensors" in str(byte_fault(Path("b.bin")))
    good("c.bin")
    Path("c.bin").rename("c.safetensors")
    assert "rename it to c.bin" in str(byte_fault(Path("c.safetensors")))


def test_too_long_broken_link_folder_and_text() -> None:
    Path("a.safetensors").write_bytes(good("a.safetensors") + b"123")
    assert str(byte_fault(Path("a.safetensors"))).startswith("too long")
    Path("link.pt").symlink_to("gone.pt")
    assert byte_fault(Path("link.pt")) == "a link to gone.pt, which does not exist"
    Path("folder.pt").mkdir()
    assert byte_fault(Path("folder.pt")) == "a folder, expected a file"
    assert byte_fault(Path("none.pt")) == "no such file"
    Path("text.pt").write_text("hello")
    assert "begins with b'hello'" in str(byte_fault(Path("text.pt")))
    Path("c.json").write_text('{"a": ')
    assert "not valid JSON" in str(byte_fault(Path("c.json")))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_named_and_not_run(zipped: bool) -> None:
    torch.save({"w": Payload()}, "evil.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"evil\.pt: a pickle carrying code \((posix|nt)\.mkdir\)") as error:
        read_plain("evil.pt")
    assert "weights_only" not in str(error.value), "no advice to switch the protection off"
    assert not Path("must_not_exist").exists()


def test_names_of_half_written_files() -> None:
    partial = (".expert_task_0.pt.tmp", "model.safetensors.part", "x.bin.incomplete", "x.crdownload")
    assert all(is_partial(Path(name)) for name in partial)
    assert not any(is_partial(Path(name)) for name in ("expert_task_0.pt", "model.safetensors", "README.md"))


def test_archive_that_says_it_has_several_pieces() -> None:
    content = good("a.pt")
    locator = content.rindex(b"PK\6\7")  # where the end of the table stands, and on which disk
    Path("a.pt").write_bytes(content[: locator + 4] + b"\1" + content[locator + 5 :])
    assert "truncated" in str(byte_fault(Path("a.pt")))
    with pytest.raises(ValueError, match=r"a\.pt: truncated"):
        read_plain(Path("a.pt"))
