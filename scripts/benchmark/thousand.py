"""A thousand experts in a pack: opening it, the memory that takes, and one expert more."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
import zlib
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from model.moe.expert_files import ExpertHeader, write_expert
from model.moe.expert_pack import PACK, packed_experts
from model.moe.experts import ExpertBank, ExpertConfig
from model.moe.pack_files import YOUNG, Pack
from scripts.benchmark.timing import medians

BASE = "benchmark"
COUNT = 1000


def make_experts(llm: nn.Module, folder: Path, tasks: Sequence[int], config: ExpertConfig) -> list[Path]:
    """Files of random experts."""
    bank = ExpertBank(llm, config)
    shapes = bank.expected_shapes()
    bank.detach()
    paths = [folder / f"expert_task_{task}.pt" for task in tasks]
    for task, path in zip(tasks, paths, strict=True):
        header = ExpertHeader("lora", config.rank, config.alpha, task, BASE)
        write_expert(path, header, {key: 0.02 * torch.randn(shape) for key, shape in shapes.items()})
    return paths


def thousand(llm: PreTrainedModel, folder: Path, config: ExpertConfig, rounds: int) -> dict[str, float]:
    """Opening a thousand experts, in this process and for the first time in another, and adding one.

    `experts_1000_add_one_seconds`, by the clock since it writes: from its file to a place in the bank.
    `experts_1000_rows_changed_by_adding`: rows of the pack, of a thousand, whose bytes are others then.
    """
    *paths, another = make_experts(llm, folder, range(COUNT + 1), config)
    packed_experts(paths)
    time.sleep(2 * YOUNG)  # until the times of the last files are trusted
    packed_experts(paths)
    bank = ExpertBank(llm, config, BASE)

    def open_all() -> None:
        for task in bank.task_ids:
            bank.remove(task)
        bank.add_packed(dict(enumerate(packed_experts(paths).values())))

    figures = {"experts_1000_open_seconds": medians({"open": open_all}, rounds)["open"]}
    figures["experts_1000_resident_gb"] = resident_when_opened(llm.config, paths, config)
    before = checksums_of_rows(folder / PACK)
    start = time.perf_counter()
    bank.add_packed({COUNT: packed_experts([*paths, another])[another]})
    figures["experts_1000_add_one_seconds"] = time.perf_counter() - start
    after = checksums_of_rows(folder / PACK)
    assert len(after) == len(before) + 1
    changed = [old != new for old, new in zip(before, after, strict=False)]
    figures["experts_1000_rows_changed_by_adding"] = sum(changed)
    bank.detach()
    return figures


def checksums_of_rows(pack: Path) -> list[int]:
    """Of every row of a pack, entry and values."""
    opened = Pack.open(pack)
    assert opened is not None, pack
    with pack.open("rb") as file:
        file.seek(len(opened.layout.head))
        return [zlib.crc32(row) for row in iter(partial(file.read, opened.layout.row_bytes), b"")]


def resident_when_opened(llm: PretrainedConfig, paths: Sequence[Path], config: ExpertConfig) -> float:
    """GB by which a new process grows when it takes these experts into a bank and uses none.

    A process that has opened them before would hide it: it fills the memory that it was given then.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_tell_growth, args=(sending, llm, paths, config))
    process.start()
    sending.close()
    try:
        return float(receiving.recv())
    except EOFError as error:
        raise ChildProcessError(f"{paths[0].parent}: the process that opened it ended early") from error
    finally:
        process.join()


def _tell_growth(
    pipe: Connection, llm: PretrainedConfig, paths: Sequence[Path], config: ExpertConfig
) -> None:
    with torch.device("meta"):  # no weights: experts do not look at them
        bank = ExpertBank(AutoModelForCausalLM.from_config(llm), config, BASE)
    gc.collect()
    before = resident()
    bank.add_packed(dict(enumerate(packed_experts(paths).values())))
    pipe.send(resident() - before)


def resident() -> float:
    """Memory of this process, GB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9
