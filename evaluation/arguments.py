"""Flags of the evaluation commands: router and generation."""

from __future__ import annotations

import argparse

from data.loading_flags import add_precision_flags
from data.text_features import usual_new_level
from evaluation.answering import Generation
from model.moe.routing_records import RouterConfig, parse_modality_combination

COMBINATIONS = ("all", "text_audio", "video_audio", "text_video", "text", "audio", "video")


def add_router_flags(parser: argparse.ArgumentParser) -> None:
    """How an expert is picked."""
    group = parser.add_argument_group("routing")
    group.add_argument(
        "--router",
        default="cosine",
        choices=("cosine", "lda", "autonomy"),
        help="compare with anchors by cosine or lda, or take the LoRA expert with the largest activation "
        "(cosine)",
    )
    group.add_argument(
        "--metric",
        default="whitened",
        choices=("whitened", "raw"),
        help="space of the cosine; raw is the published one",
    )
    group.add_argument(
        "--modality_weights",
        default="informative",
        choices=("informative", "equal"),
        help="weigh modalities by how well they tell tasks apart, or equally as published",
    )
    group.add_argument(
        "--modality_combination", default="all", choices=COMBINATIONS, help="modalities that route (all)"
    )
    group.add_argument(
        "--abstain", action="store_true", help="samples far from every task go to the bare backbone"
    )
    group.add_argument(
        "--far_level",
        type=float,
        default=RouterConfig.far_level,
        help="share of ordinary samples that count as far (0.01)",
    )
    group.add_argument(
        "--wordings",
        default="new",
        choices=("new", "known"),
        help="whether questions in words not learned from are ordinary (new), or count as far (known)",
    )
    group.add_argument(
        "--new_level",
        type=float,
        help="share of known questions that `cosine` may take for new words; 0: none "
        "(0.02 where --text_feature is an encoder's folder, else 0.005)",
    )


def router_config(arguments: argparse.Namespace) -> RouterConfig:
    """The router that the flags ask for."""
    level = usual_new_level(arguments.text_feature) if arguments.new_level is None else arguments.new_level
    return RouterConfig(
        router=arguments.router,
        metric=arguments.metric,
        modality_weights=arguments.modality_weights,
        modalities=parse_modality_combination(arguments.modality_combination),
        abstain=arguments.abstain,
        far_level=arguments.far_level,
        wordings=arguments.wordings,
        new_level=level,
    )


def add_generation_flags(parser: argparse.ArgumentParser) -> None:
    """How answers are generated."""
    group = parser.add_argument_group("answers (greedy)")
    group.add_argument("--batch_size", type=int, default=16, help="rows of a batch, of any experts (16)")
    group.add_argument("--max_new_tokens", type=int, default=32, help="longest answer in tokens (32)")
    group.add_argument(
        "--threads",
        type=int,
        help="CPU threads of each process; the same number gives the same bits (tiny: 1; else one per core)",
    )
    group.add_argument(
        "--jobs",
        "--parallel",
        type=int,
        help="processes that encode and answer side by side on a CPU, for the same bits (one per core with "
        "--threads 1, as the tiny backbone has; else 0)",
    )
    add_precision_flags(group)


def generation(arguments: argparse.Namespace) -> Generation:
    """The generation settings that the flags ask for."""
    for name in ("batch_size", "max_new_tokens"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name}: got {getattr(arguments, name)}, expected at least 1")
    return Generation(arguments.max_new_tokens, arguments.batch_size, progress=not arguments.quiet)
