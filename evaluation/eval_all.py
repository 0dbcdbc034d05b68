"""Evaluate every stage of every method and write the report: the command behind eval_all_tasks.sh.

    python evaluation/eval_all.py --benchmark data_sample/avqa.json

Answers are kept beside RESULTS/answers.jsonl as they come; a restart answers only what is missing. Several
processes (torchrun) share the questions and give the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.benchmark import Benchmark, Task, read_benchmark
from data.command_line import add_backbone_flags, add_data_flags, main_command, open_inputs, read_all
from data.files import only_run_for, only_run_in, require_writable, sha256_file, write_json_atomic
from data.folders import StudyFolders, seed_folder
from data.inputs import Inputs
from data.run_record import provenance
from data.samples import Sample
from evaluation.alias_files import alias_file, read_aliases
from evaluation.anchor_map import write_anchor_map
from evaluation.anchor_moe import describe, prediction_json
from evaluation.answer_book import AnswerBook, answers_beside
from evaluation.answering import Answerer, Generation
from evaluation.arguments import add_generation_flags, add_router_flags, generation, router_config
from evaluation.costs import record_costs, training_costs
from evaluation.expert_loading import loaded
from evaluation.ranks import Ranks, count_jobs, fix_threads, launched
from evaluation.report.writing import write_pages
from evaluation.result_files import MethodResult, write_report
from evaluation.scoring.normalised import NO_ALIASES, Aliases
from evaluation.scoring.routing import RoutingRecord
from evaluation.study import Experts, MethodPlan, Planner, score_study
from evaluation.tables import format_summary
from methods.base import OURS, Method
from methods.table import add_methods_flag, chosen_methods
from model.language_model.backbone import Backbone
from model.moe.routing_records import RouterConfig, Routing
from train.dry_run import add_dry_run_flags, dry_run

log = logging.getLogger("eval_all")


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--benchmark", type=Path, default=Path("data_sample/avqa.json"), help="benchmark file")
    made.add_argument("--split", choices=("test", "val"), default="test", help="which questions (test)")
    made.add_argument("--output", type=Path, help="what train_all.py wrote (output/NAME of the benchmark)")
    made.add_argument("--results", type=Path, help="results and report (eval_results/NAME)")
    made.add_argument(
        "--experts", type=Path, help="folder of given experts (and anchors beside them), instead of --output"
    )
    add_methods_flag(made)
    made.add_argument("--seeds", default="0", help="space- or comma-separated")
    made.add_argument(
        "--failed_answers",
        choices=("wrong", "drop"),
        default="wrong",
        help="count empty answers as wrong, or leave them out of the denominator as published (wrong)",
    )
    add_router_flags(made)
    add_generation_flags(made)
    add_backbone_flags(made)
    add_data_flags(made)
    add_dry_run_flags(made)
    return made


def main(arguments: argparse.Namespace) -> None:
    """Evaluate and report."""
    started = time.monotonic()
    benchmark = read_benchmark(arguments.benchmark)
    if arguments.dry_run:
        print(dry_run(arguments, benchmark.files("train"), benchmark.files(arguments.split), benchmark))
        return
    arguments.output = arguments.output or Path("output") / benchmark.name
    arguments.results = arguments.results or Path("eval_results") / benchmark.name
    require_writable(arguments.results)
    seeds = [int(seed) for seed in arguments.seeds.replace(",", " ").split()]
    router, settings = router_config(arguments), generation(arguments)
    aliases = read_aliases(alias_file(benchmark.path))
    with only_run(arguments.results, seeds, benchmark), launched() as ranks:
        tests = read_tests(benchmark, arguments)
        inputs, backbone, preset = open_inputs(arguments)
        threads = fix_threads(arguments.threads, preset)
        jobs = count_jobs(arguments.jobs, threads, backbone.llm.device, ranks)
        settings = replace(settings, jobs=jobs)
        methods = chosen_methods(arguments.methods, preset)
        questions = [sample for group in tests for sample in group]
        inputs.encode(questions, rank=ranks.rank, world=ranks.world, jobs=jobs)
        ranks.wait()
        shared = (
            benchmark.tasks,
            tests,
            methods,
            inputs,
            backbone,
            router,
            settings,
            aliases,
            arguments,
            ranks,
        )
        runs = [evaluate_seed(seed, *shared) for seed in seeds]
        results = [merge([run[position] for run in runs]) for position in range(len(methods))]
        if not any(result.matrices for result in results):
            raise ValueError(
                f"nothing to evaluate: {results[0].note}; train first, or correct --output or --experts "
                "(OUTPUT or EXPERTS of eval_all_tasks.sh)"
            )
        if not ranks.first:
            return
        record = provenance(round(time.monotonic() - started, 1))
        record |= about(benchmark, arguments, inputs, backbone)
        names = [task.name for task in benchmark.tasks]
        summary = write_report(
            arguments.results, benchmark.name, names, seeds, results, record, [t.id for t in benchmark.tasks]
        )
        pages = write_pages([arguments.results], arguments.results)
    print(format_summary(summary))
    if arguments.failed_answers == "drop":
        log.warning("failed answers are left out of every denominator, as published; see the column failed")
    log.info("report in %s, %.0f s; page: %s", arguments.results, time.monotonic() - started, pages[0])
    if preset == "tiny":
        log.info(
            "backbone: the embedded tiny one (%s); published checkpoints were not there",
            arguments.checkpoints / "tiny",
        )


@contextlib.contextmanager
def only_run(results: Path, seeds: Sequence[int], benchmark: Benchmark) -> Iterator[None]:
    """Hold the results folder, and each results file in it as eval_anchor.py does that may write it, too."""
    files = {seed_folder(results, seed) / task.results_file for seed in seeds for task in benchmark.tasks}
    with contextlib.ExitStack() as held:
        held.enter_context(only_run_in(results))
        for file in sorted(files):
            held.enter_context(only_run_for(answers_beside(file)))
        yield


def read_tests(benchmark: Benchmark, arguments: argparse.Namespace) -> list[list[Sample]]:
    """The questions of every task, checked before anything long starts."""
    files: list[Path] = []
    for task in benchmark.tasks:
        path = task.test if arguments.split == "test" else task.val
        if path is None:
            raise ValueError(
                f"{benchmark.path}: task {task.id} ({task.name}) names no {arguments.split!r} file; add one"
            )
        files.append(path)
    samples = read_all(files, benchmark, arguments)
    return [samples[path] for path in files]


def about(
    benchmark: Benchmark, arguments: argparse.Namespace, inputs: Inputs, backbone: Backbone
) -> dict[str, object]:
    """What the numbers depend on, for the report."""
    files = [task.test if arguments.split == "test" else task.val for task in benchmark.tasks]
    return ({"protocol": benchmark.protocol} if benchmark.protocol else {}) | {
        "benchmark_file": str(arguments.benchmark),
        "split": arguments.split,
        "data": {path.name: sha256_file(path) for path in [*files, alias_file(benchmark.path)] if path},
        "base_identity": backbone.identity,
        "router": vars(router_config(arguments)),
        "max_new_tokens": arguments.max_new_tokens,
        "threads": torch.get_num_threads(),
        "failed_answers": arguments.failed_answers,
        "inputs": inputs.identity(),
    }


def evaluate_seed(
    seed: int,
    tasks: Sequence[Task],
    tests: Sequence[Sequence[Sample]],
    methods: Sequence[Method],
    inputs: Inputs,
    backbone: Backbone,
    router: RouterConfig,
    settings: Generation,
    aliases: Aliases,
    arguments: argparse.Namespace,
    ranks: Ranks,
) -> list[MethodResult]:
    """All methods of one seed; the first process writes the published results files of anchor_moe."""
    folders = StudyFolders(arguments.output, seed, given_experts=arguments.experts)
    drop_failed = arguments.failed_answers == "drop"
    book = AnswerBook(arguments.results / "answers.jsonl", ranks)
    known, seconds = len(book), 0.0
    results: dict[str, MethodResult] = {}
    trained: dict[str, list[dict[str, Any]]] = {}
    for make in dict.fromkeys(method.make for method in methods):
        group = [method for method in methods if method.make == make]
        files = [p for method in group for p in method.expert_files(tasks, folders) if p.is_file()]
        numbered = dict(enumerate(dict.fromkeys(files)))
        experts = Experts({path: number for number, path in numbered.items()})
        with loaded(backbone, make, numbered) as found:
            answerer = Answerer(found.model, inputs, book, settings, found.digests, found.pools)
            planner = Planner(tasks, tests, folders, inputs, experts, router, answerer)
            plans = [planner.plan(method) for method in group]
            requests = [request for plan in plans for stage in plan.stages for request in stage.requests]
            begun = time.monotonic()
            texts = iter(answerer.answer(requests, f"answering, seed {seed}"))
            seconds += time.monotonic() - begun
            trained |= training_costs(tasks, group, folders, found.parameters)
        for plan in plans:
            answers = [[next(texts) for _ in stage.requests] for stage in plan.stages]
            results[plan.name] = method_result(plan, answers, tasks, drop_failed, aliases)
            if plan.name == OURS and plan.stages and ranks.first:
                place = seed_folder(arguments.results, seed)
                write_results(place, plan, answers, tasks)
                write_anchor_map(place, tasks, tests, folders, inputs, router)
    if ranks.first:
        made_by = {
            "device": provenance()["device"],
            "threads": torch.get_num_threads(),
            "processes": max(ranks.world, settings.jobs),
        }
        record_costs(arguments.results, seed, trained, len(book) - known, seconds, made_by)
    return [results[method.name] for method in methods]


def method_result(
    plan: MethodPlan,
    answers: Sequence[Sequence[str]],
    tasks: Sequence[Task],
    drop_failed: bool = False,
    aliases: Aliases = NO_ALIASES,
) -> MethodResult:
    """One method of one seed as the report wants it."""
    if plan.missing:
        log.warning("%s: not run, %s", plan.name, plan.missing)
        return MethodResult(plan.name, note=plan.missing)
    scores = score_study(plan.stages, answers, len(tasks), drop_failed=drop_failed, aliases=aliases)
    record = routing_record(plan, tasks)
    return MethodResult(
        plan.name,
        (scores.matrix,),
        scores.n,
        (scores.n_failed,),
        (record,) if record else (),
        samples=(scores.samples,),
        normalised=(scores.normalised,),
    )


def routing_record(plan: MethodPlan, tasks: Sequence[Task]) -> RoutingRecord | None:
    """The last stage's routing, None for a method that does not route."""
    last = [stage for stage in plan.stages if stage.stage == len(tasks) - 1 and stage.routing is not None]
    if not last:
        return None
    true: list[int] = []
    chosen: list[int] = []
    votes: dict[str, list[int | None]] = {}
    for stage in last:
        assert stage.routing is not None
        true += [tasks[stage.task].id] * len(stage.requests)
        chosen += stage.routing.task_ids
        for name in stage.routing.modality_scores:
            votes.setdefault(name, []).extend(single_choice(stage.routing, name))
    return RoutingRecord(true, chosen, votes)


def single_choice(routing: Routing, modality: str) -> list[int | None]:
    """The task that one modality alone would choose for each sample, None where it is absent."""
    choices: list[int | None] = []
    for row in routing.modality_scores[modality]:
        known = row.isfinite()
        best = int(row.masked_fill(~known, -float("inf")).argmax())
        choices.append(routing.candidates[best] if bool(known.any()) else None)
    return choices


def write_results(
    folder: Path, plan: MethodPlan, answers: Sequence[Sequence[str]], tasks: Sequence[Task]
) -> None:
    """The published results file of every task at the last stage: its samples with text and routing added."""
    for stage, texts in zip(plan.stages, answers, strict=True):
        if stage.stage != len(tasks) - 1 or stage.routing is None:
            continue
        rows = [
            {**request.sample.raw, **prediction_json(describe(stage.routing, row, text))}
            for row, (request, text) in enumerate(zip(stage.requests, texts, strict=True))
        ]
        write_json_atomic(folder / tasks[stage.task].results_file, rows)


def merge(results: Sequence[MethodResult]) -> MethodResult:
    """One method over seeds; a method that a seed lacks is not run, so that no mean hides it."""
    missing = [result for result in results if not result.matrices]
    if missing:
        return missing[0]
    first = results[0]
    return replace(
        first,
        matrices=tuple(result.matrices[0] for result in results),
        n_failed=tuple(result.n_failed[0] for result in results),
        routing=tuple(record for result in results for record in result.routing),
        samples=tuple(scores for result in results for scores in result.samples),
        normalised=tuple(row for result in results for row in result.normalised),
    )


if __name__ == "__main__":
    sys.exit(main_command(parser(), main))
