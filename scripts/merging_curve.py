"""What merging costs: MA against the number of experts kept, for every method, over seeds.

    python scripts/merging_curve.py --output output/AVQA --seeds "0 1 2" --split val --out output/merging

Takes the finished experts and anchors of train_all_tasks.sh. Every task keeps its anchor, so questions are
routed as without merging; the group's expert answers. The grouping is that of the first seed's anchors (an
anchor does not depend on the seed). `--all_groupings` also tries every other way to put the tasks into
groups, which tells what the grouping by anchors is worth. Answers are kept in OUT; writes curve_SPLIT.json
and prints the table.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
from torch import Tensor

from data.benchmark import read_benchmark
from data.command_line import add_backbone_flags, add_data_flags, main_command, open_inputs, read_all
from data.files import write_json_atomic
from data.folders import StudyFolders
from data.inputs import Inputs
from data.run_record import provenance
from data.samples import Sample
from evaluation.answer_book import AnswerBook
from evaluation.answering import Answerer, Generation, Request
from evaluation.arguments import add_generation_flags, generation
from evaluation.merged_experts import Sources, fold_group, open_sources
from evaluation.ranks import Ranks, count_jobs, fix_threads
from evaluation.scoring.answers import score_answers
from evaluation.scoring.statistics import SampleScores, compare, intervals
from evaluation.tables import format_interval, format_number, to_markdown
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import Backbone
from model.moe.experts import ExpertBank
from model.moe.merging import METHODS, FoldConfig
from model.moe.routing import Router, RouterConfig

Groups = tuple[tuple[int, ...], ...]
UNMERGED = "unmerged"
MAX_TASKS = 6  # of --all_groupings: 203 ways to group six tasks, 877 for seven
KEPT = ("versions", "commit", "python", "device", "threads")


@dataclass(frozen=True)
class Cell:
    """One point of the curve."""

    method: str
    groups: Groups
    by_anchor: bool


def make_parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--benchmark", type=Path, default=Path("data_sample/avqa.json"), help="benchmark file")
    made.add_argument("--output", type=Path, help="what train_all.py wrote (output/NAME of the benchmark)")
    made.add_argument("--seeds", default="0", help="space- or comma-separated")
    made.add_argument("--split", choices=("val", "test"), default="val", help="what is answered (val)")
    made.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="(all)")
    made.add_argument("--density", type=float, default=FoldConfig.density, help="of ties (0.2)")
    made.add_argument("--all_groupings", action="store_true", help="other groupings too, by the first method")
    made.add_argument("--out", type=Path, default=Path("output/merging"), help="folder")
    add_generation_flags(made)
    add_backbone_flags(made)
    add_data_flags(made)
    return made


def main(arguments: argparse.Namespace) -> None:
    """Answer what is missing, then write the table."""
    benchmark = read_benchmark(arguments.benchmark)
    output = arguments.output or Path("output") / benchmark.name
    seeds = [int(seed) for seed in arguments.seeds.replace(",", " ").split()]
    files = [task.test if arguments.split == "test" else task.val for task in benchmark.tasks]
    if None in files:
        raise ValueError(f"{benchmark.path}: a task names no {arguments.split!r} file; add one")
    read = read_all([path for path in files if path is not None], benchmark, arguments)
    tests = [read[path] for path in files if path is not None]
    folders = [StudyFolders(output, seed) for seed in seeds]
    sources = [open_sources(f.experts("anchor_moe"), f.anchors("anchor_moe")) for f in folders]
    if any(list(found.files) != [task.id for task in benchmark.tasks] for found in sources):
        raise ValueError(f"{output}: its experts are not those of {benchmark.path}; train all of its tasks")
    cells = list(make_cells(sources[0], arguments.methods, arguments.all_groupings))
    inputs, backbone, preset = open_inputs(arguments)
    threads = fix_threads(arguments.threads, preset)
    jobs = count_jobs(arguments.jobs, threads, backbone.llm.device, Ranks())
    inputs.encode([sample for group in tests for sample in group], jobs=jobs)
    settings = replace(generation(arguments), jobs=jobs)
    book = AnswerBook(arguments.out / "answers.jsonl")
    scores = [
        score_seed(found, cells, arguments.density, tests, inputs, backbone, settings, book)
        for found in sources
    ]
    rows = [
        make_row(cell, [seed[cell] for seed in scores], [seed[cells[0]] for seed in scores]) for cell in cells
    ]
    record = provenance()
    table = {
        "benchmark": benchmark.name,
        "tasks": [task.name for task in benchmark.tasks],
        "split": arguments.split,
        "n": sum(map(len, tests)),
        "seeds": seeds,
        "density": arguments.density,
        "rows": rows,
        "provenance": {**{key: record[key] for key in KEPT}, "base_identity": backbone.identity},
    }
    write_json_atomic(arguments.out / f"curve_{arguments.split}.json", table)
    print(as_markdown(table))


def make_cells(sources: Sources, methods: Sequence[str], all_groupings: bool) -> Iterator[Cell]:
    """The unmerged experts, then every method for T - 1 to 1 experts, then other groupings.

    Raises ValueError for other groupings of more than MAX_TASKS tasks.
    """
    tasks = tuple(sources.files)
    yield Cell(UNMERGED, tuple((task,) for task in tasks), True)
    chosen = [sources.group(keep).groups for keep in range(len(tasks) - 1, 0, -1)]
    for method in methods:
        yield from (Cell(method, groups, True) for groups in chosen)
    if not all_groupings:
        return
    if len(tasks) > MAX_TASKS:
        raise ValueError(f"--all_groupings: for at most {MAX_TASKS} tasks, there are {len(tasks)}")
    for groups in sorted(partitions(tasks), key=lambda groups: (-len(groups), groups)):
        if len(groups) < len(tasks) and groups not in chosen:
            yield Cell(methods[0], groups, False)


def partitions(tasks: Sequence[int]) -> Iterator[Groups]:
    """Every way to put sorted tasks into groups, groups and tasks in order."""
    if not tasks:
        yield ()
        return
    for rest in partitions(tasks[1:]):
        yield ((tasks[0],), *rest)
        for place in range(len(rest)):
            joined = (tasks[0], *rest[place])
            yield tuple(sorted((joined, *rest[:place], *rest[place + 1 :])))


def score_seed(
    sources: Sources,
    cells: Sequence[Cell],
    density: float,
    tests: Sequence[Sequence[Sample]],
    inputs: Inputs,
    backbone: Backbone,
    settings: Generation,
    book: AnswerBook,
) -> dict[Cell, SampleScores]:
    """Which questions every cell answers right, all cells in one bank and one pass.

    cell -> (last stage, task) -> (N,)
    """
    router = Router(sources.anchors, RouterConfig())
    routed = [router.route(inputs.routing(samples)).task_ids for samples in tests]
    needed = dict.fromkeys((cell.method, group) for cell in cells for group in cell.groups)
    ids = {key: number for number, key in enumerate(needed)}
    bank = ExpertBank(backbone.llm, sources.make.config, backbone.identity)
    try:
        digests = {}
        base = bank.fresh_state(None) if sources.make.header.kind == "mlp" else None
        for (method, group), number in ids.items():
            config = FoldConfig(FoldConfig.method if method == UNMERGED else method, density)
            state = fold_group(sources, group, config, base)
            bank.load_state(number, state)
            digests[number] = digest(state)
        model = AnchorLM(backbone.llm, bank, backbone.loading.prefixes)
        answerer = Answerer(model, inputs, book, settings, digests)
        requests = []
        for cell in cells:
            expert = {task: ids[cell.method, group] for group in cell.groups for task in group}
            for samples, tasks in zip(tests, routed, strict=True):
                requests += [Request(s, expert[task]) for s, task in zip(samples, tasks, strict=True)]
        texts = iter(answerer.answer(requests))
    finally:
        bank.detach()
    last = len(tests) - 1
    return {
        cell: {
            (last, i): score_answers([next(texts) for _ in samples], [s.answer for s in samples]).as_numbers()
            for i, samples in enumerate(tests)
        }
        for cell in cells
    }


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of an expert's tensors, the key of its answers."""
    found = hashlib.sha256()
    for key, tensor in state.items():
        found.update(key.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def make_row(cell: Cell, seeds: Sequence[SampleScores], unmerged: Sequence[SampleScores]) -> dict[str, Any]:
    """One point: MA over seeds, its interval, and the paired test against the unmerged experts."""
    count = len(seeds[0])
    by_task = [
        [100.0 * float(scores[count - 1, i].mean()) for i in range(count)] for scores in seeds
    ]  # per seed
    found = [statistics.mean(row) for row in by_task]
    tested = compare(seeds, unmerged, count)
    assert tested is not None
    return {
        "method": cell.method,
        "experts": len(cell.groups),
        "groups": [list(group) for group in cell.groups],
        "by_anchor": cell.by_anchor,
        "MA": round(statistics.mean(found), 4),
        "MA_std": round(statistics.stdev(found), 4) if len(found) > 1 else None,
        "MA_interval": intervals(seeds, count).MA,
        "MA_by_seed": found,
        "by_task": [round(float(value), 4) for value in np.mean(by_task, axis=0)],
        "difference": round(tested.difference, 4),
        "difference_interval": tested.interval,
        "p": tested.p,
    }


def as_markdown(table: Mapping[str, Any]) -> str:
    """The rows as a table."""
    head = ["experts", "groups", "method", "MA", "95 % interval", "minus unmerged", "p", *table["tasks"]]
    lines = [head]
    for row in table["rows"]:
        groups = " ".join("+".join(map(str, group)) for group in row["groups"])
        lines.append(
            [
                str(row["experts"]),
                groups if row["by_anchor"] else f"({groups})",
                row["method"],
                format_number(row["MA"], row["MA_std"]),
                format_interval(row["MA_interval"]),
                f"{row['difference']:+.2f}",
                "-" if row["method"] == UNMERGED else f"{row['p']:.2g}",
                *(format_number(value) for value in row["by_task"]),
            ]
        )
    return to_markdown(lines)


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
