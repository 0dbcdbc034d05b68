"""Everything that can happen to a run, tried and counted.

    python -m tests.faults --cases all --kills 100 --seed 0

Prints what was tried, survived and lost; the exit status is 1 if anything was lost. What each case does: see
docs/faults.md.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

# Before torch or transformers is imported: one thread, so that processes can be forked, and no network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from tests.faults.tally import HEADER, Tally

CASES = ("kill", "disk_full", "read_only", "two_runs", "media", "damage", "worker", "rank", "nan", "fuzz")
NEED_A_JOB = CASES[:-1]


def make_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--cases", default="all", help=f"all, or some of {','.join(CASES)}")
    made.add_argument("--tasks", type=int, default=2, help="tasks of the job that faults happen to (2)")
    made.add_argument("--kills", type=int, default=100, help="SIGKILLs of the case kill (100)")
    made.add_argument("--disks", type=int, help="full disks; default one from every file operation on")
    made.add_argument("--flips", type=int, default=1000, help="flipped bits in each kind of file (1000)")
    made.add_argument("--fuzz", type=int, default=100_000, help="hostile files over all readers (100000)")
    made.add_argument("--deaths", type=int, default=3, help="kills at each kind of work and of each rank (3)")
    made.add_argument("--seed", type=int, default=0, help="of everything that is drawn (0)")
    made.add_argument(
        "--folder", type=Path, help="where to work; files that were lost stay there (a new one)"
    )
    return made


def main() -> int:
    """Try the cases and print the table."""
    given = make_parser().parse_args()
    chosen = CASES if given.cases == "all" else tuple(given.cases.split(","))
    if unknown := sorted(set(chosen) - set(CASES)):
        sys.stderr.write(f"--cases: {unknown}, expected all or some of {','.join(CASES)}\n")
        return 2
    folder = given.folder or Path(tempfile.mkdtemp(prefix="faults_"))
    folder.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)  # of what is damaged on purpose
    print(HEADER, flush=True)
    tried = survived = 0
    lost: list[str] = []
    for tally in run_cases(chosen, folder, given):
        print(tally.row(), flush=True)
        tried, survived = tried + tally.tried, survived + tally.survived
        lost += [f"{tally.name}: {loss}" for loss in tally.losses]
    total = Tally("all", tried, survived)
    print(total.row())
    for loss in lost:
        print(f"LOST {loss}")
    if not lost and given.folder is None:
        shutil.rmtree(folder)
    return 1 if lost else 0


def run_cases(chosen: tuple[str, ...], folder: Path, given: argparse.Namespace) -> Iterator[Tally]:
    """The tallies of the chosen cases, as they come."""
    if set(chosen) & set(NEED_A_JOB):
        yield from _job_cases(chosen, folder / "jobs", given)
    if "fuzz" in chosen:
        from tests.faults.fuzz import fuzz
        from tests.faults.targets import targets

        for number, target in enumerate(targets(folder / "good")):
            cases = max(round(given.fuzz * target.share), 1)
            yield fuzz(target, cases, folder / "fuzz", given.seed * 1_000_000 + number * 10_000)


def _job_cases(chosen: tuple[str, ...], folder: Path, given: argparse.Namespace) -> Iterator[Tally]:
    from tests.faults import damage, deaths, jobs, kills, runs

    shutil.rmtree(folder, ignore_errors=True)
    reference = jobs.Study(folder / "reference", jobs.make_benchmark(folder / "data", given.tasks))
    first = jobs.preload(reference)
    if first.status:
        raise RuntimeError(f"the undisturbed job failed: {first.errors}")
    wanted = jobs.outcome(reference)
    second = jobs.Study(folder / "second", reference.benchmark)
    whole = jobs.run(second)
    undisturbed = Tally("undisturbed")
    undisturbed.count(jobs.differences(wanted, jobs.outcome(second)))
    undisturbed.notes.append(f"a job takes {whole.seconds:.1f} s")
    yield undisturbed
    cases: dict[str, Callable[[], Iterable[Tally]]] = {
        "kill": lambda: [kills.case_kill(folder, reference, whole, wanted, given.kills, given.seed)],
        "disk_full": lambda: [
            kills.case_disk_full(folder, reference, whole, wanted, given.disks, given.seed)
        ],
        "read_only": lambda: [runs.case_read_only(folder, reference, wanted)],
        "two_runs": lambda: [runs.case_two_runs(folder, reference, wanted)],
        "media": lambda: [runs.case_changed_media(folder, reference)],
        "damage": lambda: damage.case_damage(folder, reference, given.flips, given.flips // 10, given.seed),
        "worker": lambda: [deaths.case_worker(folder, reference, given.deaths)],
        "rank": lambda: [deaths.case_rank(folder, reference, given.deaths)],
        "nan": lambda: [runs.case_nan(folder, reference, wanted)],
    }
    for name, case in cases.items():
        if name in chosen:
            yield from case()


if __name__ == "__main__":
    sys.exit(main())
