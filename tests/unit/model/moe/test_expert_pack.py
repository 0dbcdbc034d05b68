"""Expert packs: what they serve, what they notice, what they refuse."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.moe import pack_files
from model.moe.expert_pack import PACK
from model.moe.experts import NO_EXPERT, ExpertBank, ExpertConfig
from model.moe.pack_format import PAGE, Entry, checksum, seal, unseal
from tests.unit.model.moe.packing import MIXED, TASKS, bank_of, change, flip, opened, row_bytes, same, save


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


def test_a_pack_answers_like_the_files(
    lora: ExpertBank, paths: dict[int, Path], toys: Callable, toy: nn.Module, x: Tensor
) -> None:
    bank = bank_of(paths, toys(0))
    (model,) = bank._model
    assert bank.task_ids == list(TASKS)
    for ids in (MIXED, [0, 1, 3, 3, 1, 0], [3] * 6, [NO_EXPERT] * 6):
        with torch.no_grad(), bank.use(ids), lora.use(ids):
            assert torch.equal(model(x), toy(x))
    with torch.no_grad(), bank.use(MIXED), lora.use(MIXED):
        assert torch.equal(model(x.bfloat16().float()), toy(x.bfloat16().float()))


def test_a_packed_expert_leaves_the_pack_to_learn(
    lora: ExpertBank, paths: dict[int, Path], toys: Callable, x: Tensor
) -> None:
    bank = bank_of(paths, toys(0))
    before = (paths[0].parent / PACK).read_bytes()
    parameters = bank.train_only(1)
    with bank.use([1] * 6):
        bank._model[0](x).square().mean().backward()
    torch.optim.SGD(parameters, lr=0.1).step()
    assert not same(bank, lora, 1)
    bank.load_state(3, lora.state(0))
    bank.remove(0)
    assert bank.task_ids == [1, 3]
    assert (paths[0].parent / PACK).read_bytes() == before


def test_an_expert_of_another_make_base_or_task_is_refused(
    lora: ExpertBank, paths: dict[int, Path], toys: Callable
) -> None:
    held = opened(paths)
    for config, base, message in (
        (ExpertConfig(rank=2, alpha=6.0), "base-1", "rank is 3, expected 2"),
        (ExpertConfig(rank=3, alpha=6.0), "base-2", "made for base"),
        (ExpertConfig(rank=3, alpha=6.0, layers=(1, 3)), "base-1", "keys missing"),
    ):
        with pytest.raises(ValueError, match=message):
            ExpertBank(toys(0), config, base).add_packed(held)
    bank = ExpertBank(toys(0), ExpertConfig(rank=3, alpha=6.0), "base-1")
    with pytest.raises(ValueError, match="task_id is 3, expected 7"):
        bank.add_packed({7: held[3]})
    assert bank.task_ids == []
    bank.add_packed({7: held[3]}, own_ids=False)
    assert torch.equal(next(iter(bank.state(7).values())), next(iter(lora.state(3).values())))
    with pytest.raises(ValueError, match="expert 7 exists"):
        bank.add_packed({7: held[3]}, own_ids=False)


def test_another_expert_is_appended_and_moves_nothing(
    lora: ExpertBank, paths: dict[int, Path], toys: Callable, settled: None, no_hashing: Callable[[], None]
) -> None:
    pack = paths[0].parent / PACK
    opened(paths)
    before, inode = pack.read_bytes(), pack.stat().st_ino
    lora.add(4, init=lora.state(1))
    paths[4] = save(lora, 4, pack.parent)
    bank = bank_of(paths, toys(0))
    assert same(bank, lora, 4) and same(bank, lora, 0)
    assert pack.stat().st_ino == inode
    assert pack.read_bytes()[: len(before)] == before
    assert pack.stat().st_size == len(before) + row_bytes(pack)[1]
    no_hashing()  # known by their times now
    assert sorted(opened(paths)) == [0, 1, 3, 4]


@pytest.mark.parametrize("young", [0.0, 1e9], ids=["times trusted", "times too young"])
@pytest.mark.parametrize("how", ["replaced", "in place", "in place, same times"])
def test_a_changed_file_is_never_served_stale(
    lora: ExpertBank,
    paths: dict[int, Path],
    toys: Callable,
    monkeypatch: pytest.MonkeyPatch,
    young: float,
    how: str,
) -> None:
    monkeypatch.setattr(pack_files, "YOUNG", young)
    opened(paths)
    times = paths[1].stat()
    change(lora, 1)
    if how == "replaced":
        save(lora, 1, paths[1].parent)
    else:
        other = save(lora, 1, paths[1].parent / "other")
        with paths[1].open("r+b") as file:
            file.write(other.read_bytes())
    if "times" in how:
        os.utime(paths[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert paths[1].stat().st_size == times.st_size
    bank = bank_of(paths, toys(0))
    assert all(same(bank, lora, task) for task in TASKS)
    assert all(same(bank_of(paths, toys(0)), lora, task) for task in TASKS)


def test_a_copied_folder_keeps_its_pack(
    lora: ExpertBank, paths: dict[int, Path], toys: Callable, settled: None, no_hashing: Callable[[], None]
) -> None:
    opened(paths)
    folder = paths[0].parent
    copy = Path(shutil.copytree(folder, folder.parent / "copy"))
    moved = {task: copy / path.name for task, path in paths.items()}
    size = (copy / PACK).stat().st_size
    assert all(same(bank_of(moved, toys(0)), lora, task) for task in TASKS)
    assert (copy / PACK).stat().st_size == size
    no_hashing()  # their new times were noted
    assert sorted(opened(moved)) == list(TASKS)


@pytest.mark.parametrize("place", ["first value", "last value", "padding"])
def test_damaged_values_are_read_from_the_file_and_packed_anew(
    lora: ExpertBank, paths: dict[int, Path], toys: Callable, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    opened(paths)
    pack = paths[0].parent / PACK
    head, row = row_bytes(pack)
    values = 4 * sum(value.numel() for value in lora.state(0).values())
    offset = {"first value": PAGE, "last value": PAGE + values - 1, "padding": row - 1}[place]
    flip(pack, head + row + offset)  # row 1: expert 1
    with caplog.at_level(logging.WARNING):
        bank = bank_of(paths, toys(0))
        assert not caplog.records  # an expert costs nothing before it is used
        assert all(same(bank, lora, task) for task in TASKS)
    assert [r.getMessage() for r in caplog.records if "expert_task_1.pt) is damaged" in r.getMessage()]
    caplog.clear()
    again = bank_of(paths, toys(0))
    assert all(same(again, lora, task) for task in TASKS) and not caplog.records
    assert pack.stat().st_size == head + 4 * row


def test_damaged_values_of_a_changed_file_raise(
    lora: ExpertBank, paths: dict[int, Path], toys: Callable
) -> None:
    bank = bank_of(paths, toys(0))
    pack = paths[0].parent / PACK
    head, _ = row_bytes(pack)
    flip(pack, head + PAGE)
    change(lora, 0)
    save(lora, 0, pack.parent)
    with pytest.raises(ValueError, match=r"expert_task_0\.pt: changed since it was opened"):
        bank.state(0)
    assert same(bank, lora, 1)


def test_any_flipped_bit_is_noticed_or_harmless(
    lora: ExpertBank, paths: dict[int, Path], toys: Callable
) -> None:
    opened(paths)
    pack = paths[0].parent / PACK
    whole = pack.read_bytes()
    generator = torch.Generator().manual_seed(0)
    head, row = row_bytes(pack)
    text = [*range(0, 30, 3), *range(head, head + 30, 3)]
    for offset in [*text, *torch.randint(len(whole), (12,), generator=generator).tolist()]:
        pack.write_bytes(whole)
        flip(pack, offset)
        bank = bank_of(paths, toys(0))
        assert all(same(bank, lora, task) for task in TASKS), offset


def test_a_truncated_pack_is_completed(lora: ExpertBank, paths: dict[int, Path], toys: Callable) -> None:
    opened(paths)
    pack = paths[0].parent / PACK
    whole = pack.read_bytes()
    head, row = row_bytes(pack)
    for size in (0, 10, head - 1, head, head + PAGE, head + row, head + row + PAGE + 8, len(whole) - 1):
        pack.write_bytes(whole[:size])
        bank = bank_of(paths, toys(0))
        assert all(same(bank, lora, task) for task in TASKS), size


def test_a_pack_that_shrinks_under_a_reader_is_noticed(
    lora: ExpertBank, paths: dict[int, Path], toys: Callable
) -> None:
    bank = bank_of(paths, toys(0))
    pack = paths[0].parent / PACK
    head, row = row_bytes(pack)
    os.truncate(pack, head + row)
    assert all(same(bank, lora, task) for task in TASKS)


def test_a_torn_append_is_no_row(lora: ExpertBank, paths: dict[int, Path], toys: Callable) -> None:
    """A process killed between the values and the entry of a row."""
    opened({task: paths[task] for task in (0, 1)})
    pack = paths[0].parent / PACK
    head, row = row_bytes(pack)
    with pack.open("ab") as file:
        file.write(bytes(PAGE) + os.urandom(row - PAGE - 5))
    bank = bank_of(paths, toys(0))
    assert all(same(bank, lora, task) for task in TASKS)
    assert pack.stat().st_size == head + 4 * row


def test_sealed_values_come_back_or_nothing(tmp_path: Path) -> None:
    value = {"text": "x" * 5000, "numbers": [1, 2, None]}
    path = tmp_path / "sealed"
    path.write_bytes(bytes(PAGE) + seal(value))
    with path.open("rb") as file:
        assert unseal(file.fileno(), PAGE) == value
        assert unseal(file.fileno(), 0) is None
        assert unseal(file.fileno(), 10 * PAGE) is None
        assert Entry.read(file.fileno(), 0, path) is None
    flip(path, PAGE + 5000)
    with path.open("rb") as file:
        assert unseal(file.fileno(), PAGE) is None


def test_the_checksum_sees_words_that_change_move_or_swap() -> None:
    values = torch.randn(4 * PAGE // 4, generator=torch.Generator().manual_seed(0))
    pages = values.view(4, -1)
    moved = [
        values.roll(2),
        pages[[1, 0, 2, 3]].flatten(),
        pages.view(4, -1, 2)[:, torch.arange(511, -1, -1)].flatten(),
        torch.cat([values[:-2], torch.zeros(2)]),
        torch.zeros_like(values),
    ]
    sums = {checksum(part.contiguous()) for part in [values, *moved]}
    assert len(sums) == 6 and checksum(values.clone()) == checksum(values)
