"""What answers, from its files: experts into a bank, prompt pools beside the bare backbone.

LoRA experts come from their folder's pack, what no pack holds comes from its file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from data.files import sha256_file
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import Backbone
from model.language_model.prompt_pool import PromptPool, load_pool
from model.moe.expert_files import ExpertFile, inspect_expert, read_expert
from model.moe.expert_pack import packed_experts
from model.moe.experts import ExpertBank, ExpertConfig
from model.moe.gated import open_bank

# Makes of files; what is of one make fits one model.
EXPERTS, GATED, POOLS = "experts", "gated", "pools"


@dataclass(frozen=True)
class Loaded:
    """A model ready to answer."""

    model: AnchorLM
    digests: dict[int, str]  # id -> SHA-256 of its file
    pools: dict[int, PromptPool] = field(default_factory=dict)  # id -> pool, which answers without expert

    @property
    def parameters(self) -> int:
        """Numbers that one file holds; 0 where there is none."""
        if self.pools:
            return sum(p.numel() for p in next(iter(self.pools.values())).parameters())
        shapes = self.model.bank.expected_shapes() if self.model.bank and self.digests else {}
        return sum(math.prod(shape) for shape in shapes.values())


@contextmanager
def loaded(backbone: Backbone, make: str, files: Mapping[int, Path]) -> Iterator[Loaded]:
    """Within the block the backbone answers with these files, id -> file, of one make.

    Raises:
        ValueError: as `load_experts`, or a file is no pool where pools are expected.
    """
    if make == POOLS:
        pools = {key: load_pool(path, backbone.identity)[0] for key, path in files.items()}
        digests = {key: sha256_file(path) for key, path in files.items()}
        yield Loaded(AnchorLM(backbone.llm, None, backbone.loading.prefixes), digests, pools)
        return
    bank, digests = load_experts(backbone.llm, backbone.identity, files, own_ids=False)
    try:
        yield Loaded(AnchorLM(backbone.llm, bank, backbone.loading.prefixes), digests)
    finally:
        bank.detach()


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
    bank = open_bank(llm, _shared_config(known), base_identity)
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
