"""Costs beside the results: records of training, answers and seconds over several runs."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from data.benchmark import Task
from data.files import unseal
from data.folders import StudyFolders
from evaluation.costs import record_costs, training_costs
from methods.table import chosen_methods

CPU = {"device": "cpu", "threads": 1, "processes": 2}


def read(folder: Path) -> dict[str, Any]:
    """What an evaluation wrote; nothing but its checksum beside it."""
    content, sealed = unseal((folder / "costs.json").read_bytes())
    assert sealed
    return content


def test_what_training_cost(tmp_path: Path) -> None:
    tasks = [Task(task, f"t{task}", None, None, None, f"task{task}") for task in range(2)]
    folders = StudyFolders(tmp_path)
    experts = folders.experts("anchor_moe")
    experts.mkdir(parents=True)
    for task in range(2):
        (experts / f"expert_task_{task}.pt").write_bytes(b"x" * 100)
    record = {
        "identity": {"processes": 1},
        "training": {"seconds": 3.5},
        "provenance": {"device": "cpu", "threads": 1, "command": ["a.py"]},
    }
    (experts / "expert_task_0.run.json").write_text(json.dumps(record))
    found = training_costs(tasks, chosen_methods("anchor_moe sequential zero_shot", "tiny"), folders, 32)
    first, second = found["anchor_moe"]
    assert (first["parameters"], first["bytes"], first["seconds"], first["device"]) == (32, 100, 3.5, "cpu")
    assert (second["seconds"], second["device"], second["command"]) == (None, None, None)
    assert found["sequential"] == found["zero_shot"] == []


def test_runs_add_up(tmp_path: Path) -> None:
    record_costs(tmp_path, 0, {"anchor_moe": []}, 100, 5.0, CPU)
    record_costs(tmp_path, 1, {"joint": []}, 50, 2.0, CPU)
    assert read(tmp_path) == {
        "trained": {"0": {"anchor_moe": []}, "1": {"joint": []}},
        "answering": CPU | {"answers": 150, "seconds": 7.0},
    }
    record_costs(tmp_path, 0, {"blind": []}, 0, 9.0, CPU | {"threads": 8})  # every answer was there
    found = read(tmp_path)
    assert found["answering"] == CPU | {"answers": 150, "seconds": 7.0} and found["trained"]["0"] == {
        "blind": []
    }
    record_costs(tmp_path, 0, {}, 10, 1.0, CPU | {"threads": 8})  # other hardware: counted anew
    assert read(tmp_path)["answering"] == CPU | {"threads": 8, "answers": 10, "seconds": 1.0}


@pytest.mark.parametrize("content", ["{", "[]", '{"answering": {"answers": 7}, "crc": "00000000"}'])
def test_damaged_ones_are_written_anew(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "costs.json").write_text(content)
    with caplog.at_level(logging.WARNING):
        record_costs(tmp_path, 0, {}, 10, 1.0, CPU)
    assert read(tmp_path)["answering"]["answers"] == 10 and "times of earlier runs are lost" in caplog.text


def test_those_of_an_earlier_version_are_added_to(tmp_path: Path) -> None:
    before = {"trained": {"1": {}}, "answering": CPU | {"answers": 7, "seconds": 2.0}}
    (tmp_path / "costs.json").write_text(json.dumps(before))
    record_costs(tmp_path, 0, {}, 10, 1.0, CPU)
    assert read(tmp_path)["answering"] == CPU | {"answers": 17, "seconds": 3.0}
