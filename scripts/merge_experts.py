"""Fold experts of similar tasks into one, until N experts are left; every task keeps its anchor.

    python scripts/merge_experts.py output/AVQA/experts --anchors output/AVQA/anchors --keep 2 \\
        --output output/AVQA/merged_2
    EXPERTS=output/AVQA/merged_2 bash eval_all_tasks.sh

Methods, what they cost in accuracy, and the folder that is written: docs/merging.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from torch import Tensor

from data.command_line import add_backbone_flags, backbone_paths, main_command
from data.files import read_json
from data.folders import stored_expert
from evaluation.merged_experts import Sources, open_sources, write_merged
from evaluation.tables import format_number
from model.language_model.backbone import load_backbone
from model.moe.experts import ExpertBank
from model.moe.merging import METHODS, FoldConfig, Grouping, anchor_distances

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("experts", type=Path, metavar="EXPERTS_DIR", help="folder of trained experts")
    made.add_argument("--anchors", type=Path, required=True, help="folder of their anchors")
    made.add_argument("--keep", type=int, required=True, help="number of experts that are left")
    made.add_argument(
        "--method", choices=METHODS, default=FoldConfig.method, help=f"how they fold ({FoldConfig.method})"
    )
    made.add_argument(
        "--density", type=float, default=FoldConfig.density, help="share of entries that ties keeps (0.2)"
    )
    made.add_argument("--output", type=Path, required=True, help="new folder")
    add_backbone_flags(made)  # read only to fold full-MLP experts by ties
    return made


def main(arguments: argparse.Namespace) -> None:
    """Group, fold, write."""
    config = FoldConfig(arguments.method, arguments.density)
    sources = open_sources(arguments.experts, arguments.anchors)
    if sources.counts is None:
        log.warning("%s: anchors without statistics, experts weigh alike", arguments.anchors)
    grouping = sources.group(arguments.keep)
    print(describe(sources, grouping))
    base = None
    if sources.make.header.kind == "mlp" and config.method == "ties" and grouping.joins:
        base = backbone_weights(sources, arguments)
    write_merged(sources, grouping, config, arguments.output, base)
    written = {stored_expert(arguments.output / "experts", task) for task in sources.files}
    before, after = (sum(p.stat().st_size for p in files) for files in (sources.files.values(), written))
    log.info(
        "%s: %d experts of %d tasks, %.1f of %.1f MB",
        arguments.output,
        len(written),
        len(sources.files),
        after / 1e6,
        before / 1e6,
    )


def describe(sources: Sources, grouping: Grouping) -> str:
    """Distances between the anchors, and what was joined at which."""
    tasks, distances = anchor_distances(sources.anchors)
    lines = ["distance of anchors (1 - routing score):", "task " + "".join(f"{task:>8}" for task in tasks)]
    for task, row in zip(tasks, distances, strict=True):
        lines.append(f"{task:>4} " + "".join(f"{format_number(float(cell)):>8}" for cell in row))
    for join in grouping.joins:
        lines.append(f"joined {_listed(join.first)} and {_listed(join.second)} at {join.distance:.4f}")
    lines.append("experts: " + "; ".join(_listed(group) for group in grouping.groups))
    return "\n".join(lines)


def _listed(group: tuple[int, ...]) -> str:
    return "+".join(map(str, group))


def backbone_weights(sources: Sources, arguments: argparse.Namespace) -> Mapping[str, Tensor]:
    """The backbone's own weights where the experts have theirs. Raises ValueError for another backbone."""
    paths, _ = backbone_paths(arguments)
    qformer = read_json(arguments.audio_qformer) if arguments.audio_qformer else None
    backbone = load_backbone(paths, qformer=qformer)
    wanted = sources.make.header.base_identity
    if wanted not in (None, backbone.identity):
        raise ValueError(
            f"{arguments.experts}: made for base {str(wanted)[:16]}, the backbone loaded is "
            f"{backbone.identity[:16]}; name the backbone they were trained on"
        )
    return ExpertBank(backbone.llm, sources.make.config, backbone.identity).fresh_state(None)


if __name__ == "__main__":
    sys.exit(main_command(parser(), main))
