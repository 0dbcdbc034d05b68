"""Expert files into a bank: LoRA experts from their folder's pack, what no pack holds from its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from data.files import sha256_file
from model.moe.expert_files import ExpertFile, inspect_expert, read_expert
from model.moe.expert_pack import packed_experts
from model.moe.experts import ExpertBank, ExpertConfig


def load_experts(
    llm: nn.Module, base_identity: str | None, files: Mapping[int, Path], *, own_ids: bool = True
) -> tuple[ExpertBank, dict[int, str]]:
    """A bank on `llm` with these experts, bank id -> file, and the SHA-256 of each file by bank id.

    Ids may share a file, as tasks with a merged expert do: it is read and held once.

    Args:
        own_ids: the ids are the tasks that the experts were trained for.

    Raises:
        ValueError: a file is missing or damaged or made for another base or task, or two differ in kind,
            rank, alpha, layers or projections. The tokens that they act on may differ.
    """
    packed = packed_experts(list(dict.fromkeys(files.values())))
    known = {path: packed[path].file if path in packed else inspect_expert(path) for path in files.values()}
    bank = ExpertBank(llm, _shared_config(known), base_identity)
    for key, path in files.items():
        bank.act_on(key, known[path].config.tokens)
    bank.add_packed({key: packed[path] for key, path in files.items() if path in packed}, own_ids=own_ids)
    holders: dict[Path, int] = {}  # file -> the first id that it was loaded under
    for key, path in files.items():
        if path in packed:
            continue
        first = holders.setdefault(path, key)
        if first != key:
            bank.active.experts[key] = bank.active.experts[first]
        elif own_ids:
            bank.load(key, path)
        else:
            wanted = replace(known[path].header, base_identity=base_identity)
            bank.load_state(key, read_expert(path, wanted), str(path))
    digests = {path: packed[path].sha256 if path in packed else sha256_file(path) for path in known}
    return bank, {key: digests[path] for key, path in files.items()}


def _shared_config(experts: Mapping[Path, ExpertFile]) -> ExpertConfig:
    """The configuration that all experts have, but for their tokens; the default one where there are none."""
    configs: dict[ExpertConfig, Path] = {}
    for path, expert in experts.items():
        first = next(iter(configs), expert.config)
        configs.setdefault(replace(expert.config, tokens=first.tokens), path)
    if len(configs) > 1:
        raise ValueError(
            f"experts of different make cannot share a bank: {', '.join(map(str, configs.values()))}"
        )
    return next(iter(configs), ExpertConfig())
