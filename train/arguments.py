"""Command-line flags of the training commands: the published names, their defaults per backbone, and what
they mean.

A flag that the published command lines carry and that has nothing to decide here is accepted; if its value
asks for something that this code does not do, it is an error, otherwise it is named once in the log.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.loading_flags import add_precision_flags, boolean
from model.moe.expert_sites import MLP, TOKENS, ExpertConfig
from train.config import ANCHOR_STATISTICS, EXPERT_INITS, LORA_INITS, SCHEDULES, TrainConfig

log = logging.getLogger(__name__)

PRESETS = {
    "published": TrainConfig(
        epochs=5, per_device_batch=2, accumulation=4, learning_rate=2e-4, gradient_checkpointing=True
    ),
    "tiny": TrainConfig(
        epochs=20,
        per_device_batch=16,
        accumulation=1,
        learning_rate=5e-3,
        label_smoothing=0.1,
        expert_init="nearest",
        lora_init="activations",
        expert=ExpertConfig(
            rank=32,
            layers="all",
            projections=("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
            tokens="answer",
        ),
    ),
}
PUBLISHED_MLP_LEARNING_RATE = 4e-5

# Flags of the published command lines that decide nothing here: name -> the only supported value, or None.
WITHOUT_EFFECT: dict[str, str | None] = {
    "version": "v1",
    "freeze_backbone": "True",
    "tune_mm_mlp_adapter": "False",
    "tune_mm_audio_projector": "False",
    "mm_projector_type": None,
    "mm_use_im_start_end": "False",
    "mm_use_im_patch_token": "False",
    "per_device_eval_batch_size": None,
    "evaluation_strategy": "no",
    "save_strategy": None,
    "save_total_limit": None,
    "lazy_preprocess": None,
    "mix_va": None,
    "moe_training_mode": "anchor",
}


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that fill `TrainConfig`; a flag that is not given takes the preset's value."""
    group = parser.add_argument_group("training (defaults depend on the backbone: --preset)")
    group.add_argument(
        "--preset", choices=sorted(PRESETS), help="defaults for the flags below; by backbone if not given"
    )
    group.add_argument(
        "--num_train_epochs", type=int, help="passes over a task's questions (tiny 20, published 5)"
    )
    group.add_argument(
        "--per_device_train_batch_size", type=int, help="questions per process and micro-batch (16, 2)"
    )
    group.add_argument(
        "--gradient_accumulation_steps", type=int, help="micro-batches per optimiser step (1, 4)"
    )
    group.add_argument(
        "--learning_rate", type=float, help="peak learning rate (tiny 5e-3; 2e-4, full-MLP 4e-5)"
    )
    group.add_argument("--weight_decay", type=float, help="decoupled weight decay (0)")
    group.add_argument(
        "--warmup_ratio", type=float, help="share of the steps with rising learning rate (0.03)"
    )
    group.add_argument("--lr_scheduler_type", choices=SCHEDULES, help="shape of the learning rate (cosine)")
    group.add_argument(
        "--label_smoothing_factor",
        type=float,
        help="share of every target spread over the vocabulary: fewer confident guesses where a task has few "
        "questions (tiny 0.1; 0)",
    )
    group.add_argument("--max_grad_norm", type=float, help="gradient clipping by global norm, 0 = off (1.0)")
    group.add_argument("--seed", type=int, help="order of questions and fresh experts (0)")
    add_precision_flags(group)
    group.add_argument(
        "--tf32", type=boolean, metavar="BOOL", default=True, help="TF32 products on NVIDIA GPUs (True)"
    )
    group.add_argument("--gradient_checkpointing", type=boolean, metavar="BOOL", help="recompute activations")
    group.add_argument(
        "--model_max_length", type=int, help="longest prompt with media and answer, in tokens (2048)"
    )
    _add_expert_flags(group)
    group.add_argument(
        "--deepspeed", type=Path, metavar="JSON", help="DeepSpeed configuration, e.g. scripts/zero2.json"
    )
    group.add_argument("--local_rank", help=argparse.SUPPRESS)  # given by the deepspeed launcher
    for name, value in WITHOUT_EFFECT.items():
        group.add_argument(
            f"--{name}", help=argparse.SUPPRESS if value is None else f"accepted; only {value} is supported"
        )


def _add_expert_flags(group: argparse._ArgumentGroup) -> None:
    """What an expert is made of and where it starts."""
    group.add_argument(
        "--expert_kind",
        choices=("lora", "mlp"),
        help="low-rank update or full copy of the linear layers (lora)",
    )
    group.add_argument(
        "--llm_lora_enable",
        type=boolean,
        metavar="BOOL",
        help="published name: False means --expert_kind mlp",
    )
    group.add_argument("--expert_rank", type=int, help="rank of LoRA experts (tiny 32; 16)")
    group.add_argument("--expert_alpha", type=float, help="LoRA experts are scaled by alpha / rank (32)")
    group.add_argument("--expert_layers", help="even, all, or layer numbers 0,2,5 (tiny all, even)")
    group.add_argument(
        "--expert_projections",
        help="comma-separated, of MLP and attention (tiny also q_proj,o_proj; gate_proj,up_proj,down_proj)",
    )
    group.add_argument(
        "--expert_tokens",
        choices=TOKENS,
        help="act on all tokens, on the text after the media, or on the answer and the token before it: "
        "what comes before is computed once and kept (tiny answer; all)",
    )
    group.add_argument(
        "--expert_init", choices=EXPERT_INITS, help="where a task's expert starts (tiny nearest, scratch)"
    )
    group.add_argument(
        "--lora_init",
        choices=LORA_INITS,
        help="A of a LoRA expert from scratch: random, or the directions in which the task's states differ "
        "(tiny activations; random)",
    )
    group.add_argument(
        "--anchor_statistics",
        choices=ANCHOR_STATISTICS,
        help="anchors from every sample once, or as published: running mean of batch means, text with answer "
        "and padding, no statistics beside it (once)",
    )
    group.add_argument(
        "--anchor_rewordings",
        type=int,
        help="rewordings of a task's questions that its anchor knows beside them, made by rule, in all "
        "(2000 where --text_feature is an encoder's folder, else 0)",
    )
    group.add_argument(
        "--lora_dropout", type=float, help="share of a LoRA expert's inputs zeroed in training (0)"
    )


def train_config(arguments: argparse.Namespace, preset: str) -> TrainConfig:
    """The configuration: the preset of the backbone, changed by the flags that were given.

    Raises ValueError for contradictory or impossible values.
    """
    base = PRESETS[arguments.preset or preset]
    expert = _expert_config(arguments, base.expert)
    if expert.kind == "mlp" and getattr(arguments, "bits", 16) < 16:
        raise ValueError(
            f"--bits {arguments.bits}: a full-MLP expert starts as a copy of the weights, which would "
            "be quantised; use --bits 16, or --expert_kind lora"
        )
    if expert.kind == "mlp" and arguments.learning_rate is None:
        base = replace(base, learning_rate=PUBLISHED_MLP_LEARNING_RATE)
    given: dict[str, Any] = {
        "epochs": arguments.num_train_epochs,
        "per_device_batch": arguments.per_device_train_batch_size,
        "accumulation": arguments.gradient_accumulation_steps,
        "learning_rate": arguments.learning_rate,
        "weight_decay": arguments.weight_decay,
        "warmup_ratio": arguments.warmup_ratio,
        "schedule": arguments.lr_scheduler_type,
        "label_smoothing": arguments.label_smoothing_factor,
        "max_grad_norm": arguments.max_grad_norm,
        "seed": arguments.seed,
        "precision": "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else None,
        "gradient_checkpointing": arguments.gradient_checkpointing,
        "max_length": arguments.model_max_length,
        "expert_init": arguments.expert_init,
        "lora_init": arguments.lora_init,
        "anchor_statistics": arguments.anchor_statistics,
        "lora_dropout": arguments.lora_dropout,
    }
    _say_without_effect(arguments)
    return replace(base, expert=expert, **{key: value for key, value in given.items() if value is not None})


def _expert_config(arguments: argparse.Namespace, base: ExpertConfig) -> ExpertConfig:
    kind = arguments.expert_kind
    if arguments.llm_lora_enable is not None:
        published = "lora" if arguments.llm_lora_enable else "mlp"
        if kind not in (None, published):
            raise ValueError(
                f"--llm_lora_enable {arguments.llm_lora_enable} contradicts --expert_kind {kind}"
            )
        kind = published
    layers: str | tuple[int, ...] | None = arguments.expert_layers
    if layers is not None and layers not in ("even", "all"):
        try:
            layers = tuple(int(number) for number in arguments.expert_layers.split(","))
        except ValueError:
            raise ValueError(
                f"--expert_layers: got {arguments.expert_layers!r}, expected even, all or numbers 0,2,5"
            ) from None
    projections = tuple(arguments.expert_projections.split(",")) if arguments.expert_projections else None
    if kind == "mlp" and projections is None:
        projections = MLP  # the published kind, whatever a preset gives LoRA experts
    given = {
        "kind": kind,
        "rank": arguments.expert_rank,
        "alpha": arguments.expert_alpha,
        "layers": layers,
        "tokens": arguments.expert_tokens,
        "projections": projections,
    }
    return replace(base, **{key: value for key, value in given.items() if value is not None})


def _say_without_effect(arguments: argparse.Namespace) -> None:
    given = {
        name: getattr(arguments, name) for name in WITHOUT_EFFECT if getattr(arguments, name) is not None
    }
    for name, value in given.items():
        supported = WITHOUT_EFFECT[name]
        if supported is not None and value.lower() != supported.lower():
            raise ValueError(f"--{name} {value} is not supported here, only {supported}; leave the flag out")
    if given:
        log.info("flags without effect here: %s", ", ".join(f"--{name}" for name in given))


def add_reporting_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that change nothing in the result."""
    group = parser.add_argument_group("reporting and workers (no effect on results)")
    group.add_argument("--logging_steps", type=int, default=1, help="optimiser steps between log lines")
    group.add_argument("--save_steps", type=int, default=100, help="optimiser steps between checkpoints")
    group.add_argument(
        "--report_to",
        default="none",
        choices=("none", "tensorboard"),
        help="TensorBoard beside the JSON lines",
    )
    group.add_argument("--dataloader_num_workers", type=int, default=2, help="threads that decode media")
