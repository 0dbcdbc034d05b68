"""Flags shared by all commands: which backbone, which media. Their manners are those of manners.py."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from data.benchmark import Benchmark
from data.feature_store import FeatureStore
from data.files import read_json
from data.inputs import Inputs
from data.loading_flags import add_loading_flags, loading
from data.manners import main_command as main_command  # for the commands, which need it beside the flags
from data.media_check import check_media
from data.media_index import MediaIndex
from data.problems import InputError, Problem
from data.samples import Sample, read_samples
from data.text_features import CHOICES, check_choice
from model.language_model.backbone import (
    Backbone,
    BackbonePaths,
    aligned_paths,
    find_checkpoints,
    load_backbone,
)
from model.language_model.block_attention import NAME as BLOCKS

log = logging.getLogger(__name__)


def add_backbone_flags(parser: argparse.ArgumentParser) -> None:
    """Which backbone, where it runs, how media are encoded."""
    group = parser.add_argument_group("backbone")
    group.add_argument(
        "--checkpoints",
        type=Path,
        default=Path("checkpoints"),
        help="folder with the published files, in the layout of checkpoints/tiny, or made by train_base.py "
        "(checkpoints)",
    )
    group.add_argument(
        "--model_name_or_path",
        "--model_path",
        type=Path,
        help="base folder, published or made by train_base.py, instead of --checkpoints",
    )
    group.add_argument(
        "--vision_tower", help="CLIP or SigLIP folder, or open_clip:NAME[:FILE]; with --model_name_or_path"
    )
    group.add_argument("--audio_tower", type=Path, help="BEATs .pt file; with --model_name_or_path")
    group.add_argument(
        "--audio_qformer", type=Path, help="JSON with Q-Former sizes, where config.json has none"
    )
    group.add_argument(
        "--mm_vision_select_layer", type=int, help="published flag; must equal the backbone's own"
    )
    group.add_argument("--num_frames", type=int, default=8, help="frames per clip (8)")
    group.add_argument(
        "--text_feature",
        type=text_feature,
        default="question",
        help=f"text half of routing: {CHOICES} (question)",
    )
    group.add_argument(
        "--feature_store",
        type=Path,
        default=Path("output/feature_store"),
        help="encoded clips; may be deleted",
    )
    add_loading_flags(group)
    group.add_argument("--device", help="cuda, cuda:1, cpu (cuda where there is one)")
    group.add_argument("--quiet", action="store_true", help="no progress bars")


def text_feature(value: str) -> str:
    """Argument type of --text_feature."""
    try:
        return check_choice(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Where media lie and what happens when a clip lacks one."""
    group = parser.add_argument_group("media")
    group.add_argument(
        "--media_root", type=Path, help="folder of relative media paths (the JSON file's own folder)"
    )
    group.add_argument("--media_prefix", help="start of absolute media paths that stands for --media_root")
    group.add_argument(
        "--missing_media",
        choices=("error", "drop"),
        default="error",
        help="a clip without sound under <audio>: stop, or leave the modality out and count it (error)",
    )


def open_inputs(arguments: argparse.Namespace) -> tuple[Inputs, Backbone, str]:
    """Load the backbone; returns inputs, backbone and the preset's name, 'tiny' or 'published'.

    Raises ValueError listing what is missing.
    """
    paths, preset = backbone_paths(arguments)
    device = torch.device(arguments.device or default_device())
    qformer = read_json(arguments.audio_qformer) if arguments.audio_qformer else None
    chosen = loading(arguments)
    backbone = load_backbone(
        paths,
        device=device,
        dtype=chosen.dtype,
        qformer=qformer,
        bits=chosen.bits,
        attn_implementation=chosen.attn_implementation or usual_attention(preset, device),
        towers=chosen.towers,
        prefixes=chosen.prefixes,
    )
    layer = backbone.config.get("mm_vision_select_layer")
    if arguments.mm_vision_select_layer not in (None, layer):
        raise ValueError(
            f"--mm_vision_select_layer {arguments.mm_vision_select_layer}: {paths.base} was made with {layer}"
        )
    log.info("backbone: %s on %s, identity %s", paths.base, device, backbone.identity[:16])
    if preset == "tiny":
        log.info("this is the embedded tiny backbone: everything runs, but its numbers are not the paper's")
    store = FeatureStore(
        arguments.feature_store,
        backbone.encoder,
        num_frames=arguments.num_frames,
        dtype=chosen.dtype,
        workers=getattr(arguments, "dataloader_num_workers", 2),
    )
    return (
        Inputs(
            backbone,
            store,
            text_feature=arguments.text_feature,
            rewordings=getattr(arguments, "anchor_rewordings", 0),
            quiet=arguments.quiet,
        ),
        backbone,
        preset,
    )


def usual_attention(preset: str, device: torch.device) -> str | None:
    """The attention kernel where none is asked for; None leaves it to transformers."""
    return BLOCKS if preset == "tiny" and device.type == "cpu" else None


def backbone_paths(arguments: argparse.Namespace) -> tuple[BackbonePaths, str]:
    """The paths given, or those found in --checkpoints; a path that is given is always obeyed."""
    if arguments.model_name_or_path is None:
        if arguments.vision_tower or arguments.audio_tower:
            raise ValueError("--vision_tower and --audio_tower go with --model_name_or_path; give all three")
        return find_checkpoints(arguments.checkpoints)
    aligned = aligned_paths(arguments.model_name_or_path)  # refuses a plain LLM, by name
    if arguments.vision_tower and arguments.audio_tower:
        paths = BackbonePaths(arguments.model_name_or_path, arguments.vision_tower, arguments.audio_tower)
    else:  # an aligned base names its towers; those of a published one lie beside it
        found = aligned or find_checkpoints(arguments.model_name_or_path.parent)[0]
        paths = BackbonePaths(
            arguments.model_name_or_path,
            arguments.vision_tower or found.vision,
            arguments.audio_tower or found.audio,
        )
    return paths, "tiny" if Path(paths.base).resolve().parent.name == "tiny" else "published"


def default_device() -> str:
    """This process's GPU, or the CPU."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def read_all(
    paths: Sequence[Path], benchmark: Benchmark | None, arguments: argparse.Namespace
) -> dict[Path, list[Sample]]:
    """Read sample files and open every medium once; file -> samples.

    Raises:
        InputError: with every fault of every file, before anything long starts.
    """
    samples: dict[Path, list[Sample]] = {}
    problems: list[Problem] = []
    readable: list[Sample] = []
    for path in dict.fromkeys(paths):
        try:
            samples[path] = read_samples(
                path,
                media_root=arguments.media_root or (benchmark.media_root if benchmark else None),
                media_prefix=arguments.media_prefix or (benchmark.media_prefix if benchmark else None),
                missing_media=arguments.missing_media,
            )
        except InputError as error:
            problems += error.problems
            readable += error.readable
    problems += check_media(
        [*(sample for group in samples.values() for sample in group), *readable],
        index=MediaIndex(arguments.feature_store / "media_index.jsonl"),
        num_frames=arguments.num_frames,
        progress=not arguments.quiet,
    )
    if problems:
        raise InputError(problems)
    return samples
