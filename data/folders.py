"""Where a study keeps its files: the published places, and one folder per further seed and comparison row."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from data.expert_map import MAP, read_expert_map
from model.moe.files import stored_path

EXPERT_PREFIX = "expert_task_"


def seed_folder(root: Path, seed: int) -> Path:
    """Where a seed's files are below the output or the results of a study: seed 0 has the folder itself."""
    return root if seed == 0 else root / f"seed_{seed}"


@dataclass(frozen=True)
class StudyFolders:
    """Output folders of one seed. Seed 0 has the published places, other seeds a folder of their own
    below."""

    output: Path  # output/AVQA
    seed: int = 0
    given_experts: Path | None = None  # folder of published or other ready experts and anchors (EXPERTS=)

    @property
    def root(self) -> Path:
        """Everything of this seed."""
        return seed_folder(self.output, self.seed)

    def experts(self, method: str) -> Path:
        """Folder of `expert_task_k.pt`."""
        return self._folder(method, "experts", EXPERT_PREFIX)

    def anchors(self, method: str) -> Path:
        """Folder of `anchor_task_k.pt`."""
        return self._folder(method, "anchors", "anchor_task_")

    def _folder(self, method: str, name: str, prefix: str) -> Path:
        """The study's own folder; for `anchor_moe` the given one or its subfolder `name`, if there is one."""
        if method != "anchor_moe":
            return self.root / "comparisons" / method / name
        if self.given_experts is None:
            return self.root / name
        for folder in (self.given_experts, self.given_experts / name):
            if tasks_in(folder, prefix):
                return folder
        raise ValueError(f"{self.given_experts}: neither it nor its subfolder {name} holds {prefix}*.pt")

    def checkpoint(self, method: str, task_id: int) -> Path:
        """Folder of the training checkpoint and the log of one cell."""
        stem = f"AVQACL-MoE_task{task_id}_ckpt"
        return self.root / stem if method == "anchor_moe" else self.root / "comparisons" / method / stem


def tasks_in(folder: Path, prefix: str = EXPERT_PREFIX) -> list[int]:
    """Sorted ids of the tasks that have a file PREFIXk.pt or PREFIXk.safetensors in a folder, or share an
    expert there (data/expert_map.py)."""
    shared = read_expert_map(folder) if prefix == EXPERT_PREFIX else {}
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.(?:pt|safetensors)")
    matches = [pattern.fullmatch(path.name) for path in folder.glob(f"{prefix}*")]
    return sorted({int(match[1]) for match in matches if match} | set(shared))


def stored_expert(folder: Path, task_id: int) -> Path:
    """The expert file of a folder: `.pt`, or `.safetensors` where only that is there; the file that the task
    shares where its expert was merged.

    Raises:
        ValueError: the task has both, or `experts.json` is damaged.
    """
    own = stored_path(expert_file(folder, task_id))
    shared = read_expert_map(folder).get(task_id)
    if shared is None:
        return own
    if own.is_file():
        raise ValueError(
            f"{own}: task {task_id} has an expert of its own and shares {shared} by {MAP}; remove one of the "
            "two, or merge into a new folder"
        )
    return stored_path(folder / shared)


def stored_anchor(folder: Path, task_id: int) -> Path:
    """The anchor file of a folder: `.pt`, or `.safetensors` where only that is there."""
    return stored_path(anchor_file(folder, task_id))


def expert_file(folder: Path, task_id: int) -> Path:
    """`expert_task_k.pt` of a folder."""
    return folder / f"expert_task_{task_id}.pt"


def anchor_file(folder: Path, task_id: int) -> Path:
    """`anchor_task_k.pt` of a folder."""
    return folder / f"anchor_task_{task_id}.pt"
