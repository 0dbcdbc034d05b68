"""Train all tasks of a benchmark: the command behind train_all_tasks.sh.

    python train/train_all.py --benchmark data_sample/avqa.json --output output/AVQA --methods anchor_moe

The backbone is loaded once, every clip is encoded once. Finished and unchanged experts are skipped,
interrupted ones resumed, changed ones refused before anything is done.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.benchmark import read_benchmark
from data.command_line import (
    add_backbone_flags,
    add_data_flags,
    backbone_paths,
    main_command,
    open_inputs,
    read_all,
)
from data.files import only_run_in, require_writable
from data.folders import StudyFolders
from data.parallel import can_fork, choose_jobs, run_forked
from data.samples import Sample
from methods.table import (
    METHODS,
    add_methods_flag,
    add_settings_flags,
    chosen_methods,
    study_cells,
    trained,
    with_settings,
)
from train.arguments import add_config_flags, add_reporting_flags, train_config
from train.cells import Cell, independent
from train.checkpoints import REPLACE
from train.dry_run import add_dry_run_flags, dry_run
from train.run_cell import Workshop, check_cell, check_sources, run_cell
from train.workshop import open_workshop

log = logging.getLogger("train_all")
ADVICE = f"{REPLACE} --output (OUTPUT of train_all_tasks.sh)"


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--benchmark", type=Path, default=Path("data_sample/avqa.json"), help="benchmark file")
    made.add_argument(
        "--output", type=Path, help="experts, anchors, checkpoints (output/NAME of the benchmark)"
    )
    add_methods_flag(made, trained(METHODS))
    made.add_argument(
        "--tasks",
        help="space- or comma-separated ids: only these tasks; runs of different tasks may share an output "
        "folder at the same time (all)",
    )
    made.add_argument(
        "--seeds", default="0", help="space- or comma-separated; seed 0 has the published places"
    )
    made.add_argument(
        "--overwrite", action="store_true", help="replace experts that were made with other settings"
    )
    made.add_argument(
        "--jobs",
        "--parallel",
        type=int,
        help="experts trained side by side on a CPU, one thread each; those that start from an earlier one "
        "follow it; 0 = one after another with all threads (tiny: one per core; 0)",
    )
    add_backbone_flags(made)
    add_data_flags(made)
    add_config_flags(made)
    add_settings_flags(made)
    add_reporting_flags(made)
    add_dry_run_flags(made)
    return made


def words(text: str) -> tuple[str, ...]:
    """'a, b c' -> ('a', 'b', 'c')."""
    return tuple(text.replace(",", " ").split())


def main(arguments: argparse.Namespace) -> None:
    """Train everything that is missing."""
    started = time.monotonic()
    benchmark = read_benchmark(arguments.benchmark)
    if arguments.dry_run:
        asked = chosen_methods(arguments.methods, "")  # without names plain ones
        recipes = {method.name: method for method in with_settings(trained(asked), arguments)}
        print(dry_run(arguments, benchmark.files("train"), benchmark.files("test"), benchmark, recipes))
        return
    arguments.output = arguments.output or Path("output") / benchmark.name
    require_writable(arguments.output)
    seeds = [int(seed) for seed in words(arguments.seeds)]
    methods = trained(chosen_methods(arguments.methods, backbone_paths(arguments)[1]))
    methods = with_settings(methods, arguments)
    plans = {
        seed: chosen_cells(
            study_cells(benchmark, methods, StudyFolders(arguments.output, seed)), arguments.tasks
        )
        for seed in seeds
    }
    cells = [cell for group in plans.values() for cell in group]
    with contextlib.ExitStack() as held:
        for cell in cells:
            held.enter_context(only_run_in(cell.checkpoint))
        inputs, backbone, preset = open_inputs(arguments)
        config = train_config(arguments, preset)
        shop = open_workshop(inputs, backbone, config, arguments, ADVICE)
        for seed, group in plans.items():
            check_sources(group, config.expert_init)
            for cell in group:
                check_cell(cell, replace(shop, config=replace(config, seed=seed)))
        files = dict.fromkeys(path for cell in cells for path in cell.files)
        samples = read_all(list(files), benchmark, arguments)
        jobs = count_jobs(arguments.jobs, shop, preset)
        shop.encode([sample for path in files for sample in samples[path]], jobs)
        chains = [
            Chain(replace(shop, config=replace(config, seed=seed)), tuple(chain), samples)
            for seed, group in plans.items()
            for chain in independent(group, config.expert_init)
        ]
        outcomes = run_chains(chains, jobs)
        report(shop, outcomes, time.monotonic() - started)


def chosen_cells(cells: Sequence[Cell], tasks: str | None) -> list[Cell]:
    """The cells of the tasks asked for. Raises ValueError for a task that none of them has."""
    if tasks is None:
        return list(cells)
    wanted, there = {int(task) for task in words(tasks)}, {cell.task_id for cell in cells}
    if not wanted or wanted - there:
        raise ValueError(f"--tasks: got {tasks!r}, expected some of {', '.join(map(str, sorted(there)))}")
    return [cell for cell in cells if cell.task_id in wanted]


@dataclass(frozen=True)
class Chain:
    """Cells of one method and seed, each of which may start from the one before."""

    shop: Workshop
    cells: tuple[Cell, ...]
    samples: Mapping[Path, Sequence[Sample]]  # by training file

    def run(self, line: int) -> list[str]:
        """Train what is missing, with the progress bar on a line of its own; what became of every cell."""
        shop = replace(self.shop, reporting=replace(self.shop.reporting, line=line))
        return [run_cell(cell, shop, gather(cell, self.samples)).outcome for cell in self.cells]


def run_chains(chains: Sequence[Chain], jobs: int) -> list[str]:
    """Outcomes of all cells; jobs 0 trains in this process with all its threads, else see `run_forked`."""
    if not jobs:
        return [outcome for chain in chains for outcome in chain.run(0)]
    done = run_forked([partial(chain.run, line) for line, chain in enumerate(chains)], jobs)
    return [outcome for outcomes in done for outcome in outcomes]


def count_jobs(asked: int | None, shop: Workshop, preset: str) -> int:
    """How many chains to train side by side; by default one per core with the tiny backbone on a CPU, else
    none.

    Raises ValueError where they are asked for and cannot be had.
    """
    accelerator = shop.accelerator
    alone = accelerator.distributed_type == "NO" and can_fork(accelerator.device, accelerator.num_processes)
    return choose_jobs(
        asked,
        alone,
        "experts are trained side by side in one launch on a CPU only; leave the flag out (GPUs: "
        "docs/cluster.md)",
        usual=preset == "tiny",
    )


def gather(cell: Cell, samples: Mapping[Path, Sequence[Sample]]) -> list[Sample]:
    """The samples that a cell may use, in file order."""
    return [sample for path in cell.files for sample in samples[path]]


def report(shop: Workshop, outcomes: list[str], seconds: float) -> None:
    """The closing lines: what was done, how long it took, what memory it needed."""
    counts = {
        what: outcomes.count(what)
        for what in ("trained", "taken over", "resumed", "skipped")
        if what in outcomes
    }
    log.info("done in %.0f s: %s", seconds, ", ".join(f"{n} {what}" for what, n in counts.items()))
    backbone = sum(p.numel() * p.element_size() for p in shop.model.llm.parameters())
    expert = sum(4 * math.prod(shape) for shape in shop.bank.expected_shapes().values())
    log.info(
        "memory: backbone LLM %.1f MB held once, one expert %.2f MB, a hundred experts %.0f MB",
        *(backbone / 1e6, expert / 1e6, expert / 1e4),
    )


if __name__ == "__main__":
    sys.exit(main_command(parser(), main))
