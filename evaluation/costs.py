"""What a study cost, kept in costs.json beside the results: every expert's parameters and hours, from the
record beside it, and the time that answering took."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.benchmark import Task
from data.files import with_checksum, write_json_atomic
from data.folders import StudyFolders
from data.run_record import read_record
from evaluation.report.reading import COSTS, read_beside
from evaluation.study import Row

log = logging.getLogger(__name__)


def training_costs(
    tasks: Sequence[Task], methods: Sequence[Row], folders: StudyFolders, parameters: int
) -> dict[str, list[dict[str, Any]]]:
    """Method -> one entry for each of its expert files; seconds null where no record says.

    parameters: numbers that one of the files holds.
    """
    return {
        method.name: [
            _entry(path, parameters) for path in method.expert_files(tasks, folders) if path.is_file()
        ]
        for method in methods
    }


def _entry(expert: Path, parameters: int) -> dict[str, Any]:
    record = expert.with_suffix(".run.json")
    content = read_record(record) if record.is_file() else {}
    made = content.get("provenance", {})
    return {
        "file": expert.name,
        "bytes": expert.stat().st_size,
        "parameters": parameters,
        "seconds": content.get("training", {}).get("seconds"),
        "processes": content.get("identity", {}).get("processes"),
        **{key: made.get(key) for key in ("device", "threads", "command")},
    }


def record_costs(
    folder: Path,
    seed: int,
    trained: Mapping[str, list[dict[str, Any]]],
    answers: int,
    seconds: float,
    made_by: Mapping[str, Any],
) -> None:
    """Write one seed's costs and a checksum into costs.json, those of the other seeds kept.

    Answers and seconds add up over the runs on the same hardware, so that a run that was stopped and started
    again, or that found every answer there, still tells what an answer takes.
    """
    path = folder / COSTS
    known = _known(path)
    before = known.get("answering", {})
    same = all(before.get(key) == value for key, value in made_by.items())
    if answers and not same:
        before = {}
    if answers or not before:
        before = {
            **made_by,
            "answers": before.get("answers", 0) + answers,
            "seconds": round(before.get("seconds", 0.0) + (seconds if answers else 0.0), 2),
        }
    seeds = known.get("trained", {}) | {str(seed): dict(trained)}
    write_json_atomic(path, with_checksum({"trained": seeds, "answering": before}))


def _known(path: Path) -> dict[str, Any]:
    """What an earlier run wrote; nothing where it is damaged, as the file is written anew."""
    if not path.is_file():
        return {}
    try:
        return read_beside(path)
    except ValueError as error:
        log.warning("%s; times of earlier runs are lost", error)
        return {}
