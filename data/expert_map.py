"""Which file holds a task's expert where several tasks share one: `experts.json` of a folder of experts.

    {"format": 1, "experts": {"0": "expert_merged_0.pt", "2": "expert_merged_0.pt"}, "crc": checksum}

It names the tasks whose experts were folded together (scripts/merge_experts.py), and only these: every other
expert of the folder is `expert_task_k.pt` as ever, also one that is trained after the merge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from data.files import read_json, take_checksum, with_checksum, write_json_atomic

MAP, FORMAT = "experts.json", 1
_TASK, _NAME = re.compile(r"0|[1-9]\d*"), re.compile(r"expert_merged_(0|[1-9]\d*)\.(pt|safetensors)")


def merged_name(tasks: tuple[int, ...]) -> str:
    """`expert_merged_K.pt`, K the lowest task of the group."""
    return f"expert_merged_{min(tasks)}.pt"


def write_expert_map(folder: Path, files: Mapping[int, str]) -> None:
    """Write `experts.json`, atomically: task -> name of a file in the folder."""
    experts = {str(task): files[task] for task in sorted(files)}
    write_json_atomic(folder / MAP, with_checksum({"format": FORMAT, "experts": experts}))


def read_expert_map(folder: Path) -> dict[int, str]:
    """Task -> name of the file that it shares; empty where a folder has no `experts.json`.

    Raises:
        ValueError: damaged, another format, or a name that no merged expert has.
    """
    path = folder / MAP
    if not path.is_file():
        return {}
    content = read_json(path)
    try:
        if isinstance(content, dict):
            take_checksum(content)  # those of earlier versions have none
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); restore it, or merge again") from error
    if not isinstance(content, dict) or set(content) != {"format", "experts"} or content["format"] != FORMAT:
        raise ValueError(
            f"{path}: expected the keys format ({FORMAT}) and experts; merge again with "
            "scripts/merge_experts.py, or update the code"
        )
    experts = content["experts"]
    if not isinstance(experts, dict):
        raise ValueError(f"{path}: experts is {type(experts).__name__}, expected task -> file name")
    for task, name in experts.items():
        if not _TASK.fullmatch(task) or not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{path}: {task!r}: {name!r}, expected a task id and expert_merged_K.pt")
    return {int(task): name for task, name in experts.items()}
