"""Examine routers by modality: what text, video and audio each tell, and their combinations.

    python scripts/examine_modalities.py --benchmark data_sample/avqa.json --output output/AVQA --split val

Takes the finished anchors of train_all_tasks.sh; nothing is answered. Percent of questions sent to their own
task's expert, macro and micro, by the default router and by the published rule.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.benchmark import read_benchmark
from data.command_line import add_backbone_flags, add_data_flags, main_command, open_inputs, read_all
from data.files import write_json_atomic
from data.folders import StudyFolders
from evaluation.arguments import COMBINATIONS
from evaluation.scoring.routing import RoutingRecord, score_routing
from model.moe.anchor_files import load_anchor
from model.moe.routing import Router, RouterConfig, parse_modality_combination

RULES = {"cosine": RouterConfig(), "lda": RouterConfig("lda"), "raw": RouterConfig("cosine", "raw", "equal")}


def make_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--benchmark", type=Path, default=Path("data_sample/avqa.json"), help="benchmark file"
    )
    parser.add_argument("--output", type=Path, help="what training wrote (output/NAME)")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="questions (test)")
    parser.add_argument("--json", type=Path, help="file to write")
    add_backbone_flags(parser)
    add_data_flags(parser)
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Print the table, and write it as JSON where asked."""
    benchmark = read_benchmark(arguments.benchmark)
    files = benchmark.files(arguments.split)
    if len(files) < len(benchmark.tasks):
        raise ValueError(f"{arguments.benchmark}: not every task names a {arguments.split!r} file; add them")
    samples = read_all(files, benchmark, arguments)
    inputs, _, _ = open_inputs(arguments)
    folder = StudyFolders(arguments.output or Path("output") / benchmark.name).anchors("anchor_moe")
    anchors = [
        load_anchor(folder / f"anchor_task_{task.id}.pt", task.id, inputs.base_identity)
        for task in benchmark.tasks
    ]
    ids = [task.id for task in benchmark.tasks]
    true = [task for task, file in zip(ids, files, strict=True) for _ in samples[file]]
    asked = [sample for file in files for sample in samples[file]]
    inputs.encode(asked)
    features = inputs.routing(asked)
    found: dict[str, dict[str, dict[str, float]]] = {}
    print("macro, micro".ljust(14) + "".join(rule.rjust(16) for rule in RULES))
    for combination in COMBINATIONS:
        found[combination] = {}
        for rule, config in RULES.items():
            modalities = parse_modality_combination(combination)
            routing = Router(anchors, replace(config, modalities=modalities)).route(features)
            scores = score_routing(RoutingRecord(true, routing.task_ids), ids)
            found[combination][rule] = {"macro": scores.macro, "micro": scores.micro}
        pairs = (f"{pair['macro']:.2f} {pair['micro']:.2f}" for pair in found[combination].values())
        print(combination.ljust(14) + "".join(pair.rjust(16) for pair in pairs))
    if arguments.json is not None:
        write_json_atomic(arguments.json, found)


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
