"""Expert packs where something fails: appends, folders, files, several processes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.moe import pack_files
from model.moe.expert_pack import PACK, packed_experts
from model.moe.experts import ExpertBank, ExpertConfig
from model.moe.files import write_tensor_file
from tests.unit.model.moe.packing import TASKS, bank_of, change, opened, row_bytes, same, save


@pytest.fixture
def paths(lora: ExpertBank, tmp_path: Path) -> dict[int, Path]:
    """The files of experts 0, 1 and 3."""
    return {task: save(lora, task, tmp_path) for task in TASKS}


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of files are trusted at once."""
    monkeypatch.setattr(pack_files, "YOUNG", 0.0)


@pytest.fixture
def no_hashing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, reading a whole expert file fails the test."""

    def forbid() -> None:
        def read(path: Path) -> str:
            raise AssertionError(f"{path} was read")

        monkeypatch.setattr(pack_files, "sha256_of", read)
        monkeypatch.setattr("model.moe.expert_pack.sha256_of", read)

    return forbid


def test_a_failed_append_leaves_the_pack_as_it_was(
    lora: ExpertBank, paths: dict[int, Path], toys: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened({0: paths[0]})
    pack = paths[0].parent / PACK
    before = pack.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert sorted(opened(paths)) == [0]
    assert pack.read_bytes() == before
    monkeypatch.undo()
    assert all(same(bank_of(paths, toys(0)), lora, task) for task in TASKS)


def test_other_shapes_and_much_waste_make_the_pack_anew(
    lora: ExpertBank, paths: dict[int, Path], toys: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(paths)
    pack = paths[0].parent / PACK
    bank = ExpertBank(toys(0), ExpertConfig(rank=2), "base-1")
    for task in TASKS:
        bank.add(task, generator=torch.Generator().manual_seed(task))
        save(bank, task, pack.parent)
    held = opened(paths)
    assert sorted(held) == list(TASKS) and {expert.entry.header.rank for expert in held.values()} == {2}
    monkeypatch.setattr(pack_files, "SPARE", 0)
    head, row = row_bytes(pack)
    for spare in (1, 2, 3, 4, 0):  # as many as are in use, and one more; then the next change cleans up
        change(bank, 1)
        save(bank, 1, pack.parent)
        opened(paths)
        assert pack.stat().st_size == head + (3 + spare) * row


def test_what_no_pack_holds(paths: dict[int, Path], toys: Callable, lora: ExpertBank) -> None:
    folder = paths[0].parent
    full = ExpertBank(toys(0), ExpertConfig(kind="mlp"), None)
    full.add(9)
    assert packed_experts([save(full, 9, folder / "full")]) == {}
    assert os.listdir(folder / "full") == ["expert_task_9.pt"]
    both = folder / "expert_task_1.safetensors"
    lora.save(1, both)
    assert sorted(opened(paths)) == [0, 3]
    paths[1].unlink()
    assert list(packed_experts([both])) == [both]
    with pytest.raises(ValueError, match="no such file"):
        packed_experts([folder / "expert_task_8.pt"])
    assert packed_experts([]) == {}


def test_a_folder_that_cannot_be_written_serves_what_its_pack_has(
    lora: ExpertBank, paths: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened({0: paths[0]})
    change(lora, 0)
    save(lora, 0, paths[0].parent)
    opened({0: paths[0], 1: paths[1]})
    before = (paths[0].parent / PACK).read_bytes()

    def read_only(path: Path, mode: str = "r", *rest: object, **options: object) -> object:
        if "+" in mode or "w" in mode:
            raise OSError(30, "Read-only file system", str(path))
        return plain(path, mode, *rest, **options)

    plain = Path.open
    monkeypatch.setattr(Path, "open", read_only)
    assert sorted(opened(paths)) == [0, 1]
    assert (paths[0].parent / PACK).read_bytes() == before


def test_a_damaged_expert_file_is_refused_before_it_is_packed(paths: dict[int, Path]) -> None:
    paths[1].write_bytes(paths[1].read_bytes()[:500])
    with pytest.raises(ValueError, match=r"expert_task_1\.pt"):
        opened(paths)
    write_tensor_file(paths[1], {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match="unexpected key 'x'"):
        opened(paths)


def test_processes_that_append_at_once_lose_nothing(
    lora: ExpertBank, paths: dict[int, Path], toys: Callable
) -> None:
    folder = paths[0].parent
    for task in range(4, 10):
        lora.add(task, init=lora.state(1))
        paths[task] = save(lora, task, folder)
    opened({0: paths[0]})
    program = (
        "import sys; from pathlib import Path; from model.moe.expert_pack import packed_experts\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for name in sys.argv[1:]: packed_experts([Path(name)])"
    )
    order = list(paths.values())
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, order)],
        cwd=Path(__file__).parents[4],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("\n")
        other.stdin.flush()
        for path in reversed(order):
            packed_experts([path])
    assert other.returncode == 0
    pack = folder / PACK
    head, row = row_bytes(pack)
    assert pack.stat().st_size == head + len(paths) * row
    bank = bank_of(paths, toys(0))
    assert all(same(bank, lora, task) for task in paths)
