"""The flag --dry_run of all commands: what the run would need, from configuration and sample files alone.

The backbone is built on the meta device: no weight is read and no medium opened. Without the published files
their known sizes are taken, since the tiny backbone, which a real run falls back to, needs no plan; it is
planned where its folder is named (--checkpoints checkpoints/tiny, or --preset tiny).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from data.command_line import backbone_paths
from data.files import read_json, write_json_atomic
from data.loading_flags import loading
from data.prompts import PromptTokenizer
from data.samples import Benchmark, Sample, read_samples
from data.workload import MediaTokens, count_workload
from model.language_model.backbone import TINY, load_tokenizer
from model.planning.skeleton import Configs, build_skeleton, published_configs, read_configs
from train.arguments import PRESETS, train_config
from train.budget import Asking, Budget, Machine, make_budget
from train.budget_tables import format_budget
from train.config import TrainConfig
from train.method_plans import method_plans
from train.recipe import Recipe


def add_dry_run_flags(parser: argparse.ArgumentParser) -> None:
    """`--dry_run` and what it assumes."""
    group = parser.add_argument_group("planning")
    group.add_argument(
        "--dry_run",
        action="store_true",
        help="print parameters, memory per GPU, FLOPs, disk and hours, and do nothing else",
    )
    group.add_argument("--dry_run_json", type=Path, metavar="OUT", help="also write the plan as JSON")
    add_machine_flags(group)


def add_machine_flags(group: argparse._ArgumentGroup) -> None:
    """What a plan assumes of the machine and of the sounds."""
    group.add_argument(
        "--gpus", type=int, nargs="+", default=[1, 8], metavar="N", help="numbers of GPUs to plan for (1 8)"
    )
    group.add_argument("--gpu_tflops", type=float, default=312.0, help="peak of one GPU (312: A100, bf16)")
    group.add_argument("--mfu", type=float, default=0.35, help="share of the peak that is reached (0.35)")
    group.add_argument(
        "--audio_seconds", type=float, help="length of a sound (one window of the audio tower)"
    )


def dry_run(
    arguments: argparse.Namespace,
    train: Sequence[Path],
    test: Sequence[Path],
    benchmark: Benchmark | None = None,
    recipes: Mapping[str, Recipe] | None = None,
) -> str:
    """The plan as text; written as JSON too where asked. Arguments and errors are those of `plan`."""
    budget, source = plan(arguments, train, test, benchmark, recipes)
    if arguments.dry_run_json:
        write_json_atomic(arguments.dry_run_json, budget_json(budget, source))
    return format_budget(budget, source)


def plan(
    arguments: argparse.Namespace,
    train: Sequence[Path],
    test: Sequence[Path],
    benchmark: Benchmark | None = None,
    recipes: Mapping[str, Recipe] | None = None,
) -> tuple[Budget, str]:
    """What the run would need, and where the sizes of its backbone come from.

    Args:
        train, test: sample files, one per task. A command that has none of one kind leaves it empty.
        recipes: name -> method to train; those that have no plain experts are planned beside these.

    Raises:
        ValueError: a configuration or sample file is no good, or a flag is out of range.
    """
    machine = Machine(tuple(arguments.gpus), arguments.gpu_tflops, arguments.mfu)
    chosen = loading(arguments)
    configs, preset, source = backbone_configs(arguments)
    sizes = build_skeleton(configs).sizes
    window = configs.base.get("audio_window_seconds", 30.0)
    asking = Asking(
        getattr(arguments, "batch_size", Asking.rows),
        getattr(arguments, "max_new_tokens", Asking.new_tokens),
        math.ceil((arguments.audio_seconds or window) / window),
    )
    tokens = MediaTokens(sizes.vision.patches, asking.chunks * sizes.aligner.queries)
    tokenizer = None
    if (configs.source / "tokenizer.model").is_file():
        tokenizer = PromptTokenizer(load_tokenizer(configs.source))
    workload = count_workload(
        [_samples(path, benchmark, arguments) for path in train],
        [_samples(path, benchmark, arguments) for path in test],
        num_frames=arguments.num_frames,
        tokens=tokens,
        tokenizer=tokenizer,
    )
    budget = make_budget(
        sizes,
        configuration(arguments, preset),
        workload,
        machine,
        asking,
        chosen.bits,
        chosen.kernel,
        chosen.prefixes.memory,
    )
    methods = method_plans(recipes or {}, budget, chosen, arguments.text_feature)
    return replace(budget, methods=methods), source


def backbone_configs(arguments: argparse.Namespace) -> tuple[Configs, str, str]:
    """What to build, the preset of its training, and where its sizes come from, for people."""
    named = arguments.model_name_or_path is not None or getattr(arguments, "preset", None) == "tiny"
    named = named or arguments.checkpoints.resolve().name == TINY
    try:
        paths, preset = backbone_paths(arguments)
    except ValueError:
        if named:
            raise
        return published_configs(), "published", "the published system by its known sizes (files incomplete)"
    if preset == "tiny" and not named:
        missing = f"no published files in {arguments.checkpoints}"
        return published_configs(), "published", f"the published system by its known sizes ({missing})"
    qformer = read_json(arguments.audio_qformer) if arguments.audio_qformer else None
    return read_configs(paths, qformer), preset, f"{paths.base}, {paths.vision}, {paths.audio}"


def configuration(arguments: argparse.Namespace, preset: str) -> TrainConfig:
    """The training settings: of the flags, or the preset's where the command does not train."""
    if hasattr(arguments, "expert_kind"):
        return train_config(arguments, preset)
    precision = "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "fp32"
    return replace(PRESETS[preset], precision=precision)


def budget_json(budget: Budget, source: str) -> dict[str, Any]:
    """The budget as plain values, with the totals that a reader looks for."""
    plain: dict[str, Any] = {"source": source, **asdict(budget)}
    for row, shown in zip(budget.training, plain["training"], strict=True):
        for name, memory in row.by_strategy.items():
            shown["by_strategy"][name]["total"] = memory.total
    for kind, by_format in budget.inference.items():
        for name, needed in by_format.items():
            plain["inference"][kind][name]["total"] = needed.total
    plain["memory"]["total"] = budget.memory.total
    for name, method in budget.methods.items():
        if method.memory is not None:
            plain["methods"][name]["memory"]["total"] = method.memory.total
    return plain


def _samples(path: Path, benchmark: Benchmark | None, arguments: argparse.Namespace) -> list[Sample]:
    return read_samples(
        path,
        media_root=arguments.media_root or (benchmark.media_root if benchmark else None),
        media_prefix=arguments.media_prefix or (benchmark.media_prefix if benchmark else None),
        missing_media=arguments.missing_media,
    )
