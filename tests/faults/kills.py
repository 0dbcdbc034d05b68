"""SIGKILL in every phase of a job: what was finished stays, and restarted it ends with the same numbers."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from tests.faults.crash import PHASES, Fault
from tests.faults.jobs import Ended, Job, Study, both, differences, finished, lost_since, outcome, run
from tests.faults.tally import Tally

MOST_KILLS = 5  # of one job, before it may end


def case_kill(
    root: Path, reference: Study, whole: Ended, wanted: dict[str, Any], kills: int, seed: int
) -> Tally:
    """`kills` kills, every phase in turn: at a file operation, shortly after one, or at any time at all."""
    tally = Tally("kill")
    draw, where = random.Random(seed), Counter[str]()
    phases = [name for name in PHASES if whole.operations[name]]
    number = 0
    while tally.tried < kills:
        study = Study(root / f"kill{number}", reference.benchmark)
        number += 1
        before: dict[str, Any] = {}
        happened: list[str] = []
        losses: list[str] = []
        for _ in range(draw.randint(1, MOST_KILLS)):
            if tally.tried + len(happened) == kills:
                break
            phase = [*phases, "any"][(tally.tried + len(happened)) % (len(phases) + 1)]
            if not _kill(study, phase, whole, draw):
                break
            happened.append(phase)
            if loss := lost_since(before, study):
                losses.append(f"kill in {phase}: {loss}")
            before = finished(study)
        ended = run(study)
        loss = differences(wanted, outcome(study)) or lost_since(before, study)
        if ended.status or loss:
            losses.append(f"{study.folder.name} killed in {happened}: {loss or ended.errors[-300:]}")
        for position, phase in enumerate(happened):
            where[phase] += 1
            tally.count(losses[position] if position < len(losses) else None)
        if not happened and losses:
            tally.count(losses[0])
        shutil.rmtree(study.folder)
    tally.notes.append(", ".join(f"{count} {name}" for name, count in where.items()) + f"; {number} jobs")
    return tally


def _kill(study: Study, phase: str, whole: Ended, draw: random.Random) -> bool:
    """Run the job and kill it in a phase; False if it ended before."""
    if phase == "any":
        return Job(study, lambda: both(study)).wait(kill_after=draw.uniform(0.0, whole.seconds)).killed
    kind = draw.choice(("kill", "signal"))
    fault = Fault(phase, draw.randrange(whole.operations[phase]), kind)
    return Job(study, lambda: both(study), fault).wait(delay=draw.uniform(0.0, 0.02)).killed


def case_disk_full(
    root: Path, reference: Study, whole: Ended, wanted: dict[str, Any], tries: int | None, seed: int
) -> Tally:
    """A full disk from every file operation on, or from `tries` of them: one clear line, and nothing lost."""
    tally = Tally("disk full")
    draw = random.Random(seed)
    places = [(phase, number) for phase in PHASES for number in range(whole.operations[phase])]
    if tries is not None and tries < len(places):
        places = draw.sample(places, tries)
    for phase, number in places:
        study = Study(root / "full", reference.benchmark)
        ended = run(study, fault=Fault(phase, number, "full", draw.choice((0, 100, 2000))))
        before = finished(study)
        if ended.status == 0:  # the rest was written below the limit, or only renamed
            loss = None
        else:
            loss = ended.unclear("File too large", str(study.folder))
        again = run(study)
        loss = loss or lost_since(before, study) or differences(wanted, outcome(study))
        if again.status:
            loss = loss or f"did not recover: {again.errors[-300:]}"
        tally.count(loss and f"from {phase} {number} on: {loss}")
        shutil.rmtree(study.folder)
    tally.notes.append(f"{sum(whole.operations.values())} file operations in a job")
    return tally
