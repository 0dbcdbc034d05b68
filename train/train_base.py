"""Make a backbone out of an LLM and frozen towers: train projector and audio aligner on captions.

    python train/train_base.py --model_name_or_path SmolLM2-135M-Instruct \\
        --vision_tower siglip2-base-patch16-224 --audio_tower BEATs_iter3_plus_AS2M.pt \\
        --data_path captions.json --output_dir checkpoints/my-base

The data are sample files as for experts; a caption is an answer: {"conversations": [{"from": "human",
"value": "<video>\\n<audio>\\nDescribe the clip."}, {"from": "gpt", "value": "CAPTION"}], ...}. All commands
take the folder as --model_name_or_path or --checkpoints.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.command_line import add_data_flags, main_command, read_all
from data.files import only_run_in, read_json, require_writable, sha256_file
from data.run_record import differing_keys, provenance, read_identity, write_record
from data.samples import Sample
from data.tower_outputs import TowerOutputs
from model.encoders.vision import OPEN_CLIP
from model.language_model.alignment import BridgeConfig, save_aligned, start
from model.language_model.backbone import Backbone, BackbonePaths
from model.language_model.families import convert_gguf
from train.alignment import AlignmentTraining
from train.arguments import add_reporting_flags, boolean
from train.checkpoints import REPLACE, CheckpointFolder, changed_message
from train.config import TrainConfig
from train.reporting import Reporting
from train.workshop import make_accelerator

log = logging.getLogger("train_base")
ADVICE = f"{REPLACE} --output_dir"


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data_path", type=Path, nargs="+", required=True, help="sample JSON files")
    made.add_argument("--output_dir", type=Path, required=True, help="folder of the new backbone")
    made.add_argument("--overwrite", action="store_true", help="replace a backbone made with other settings")
    group = made.add_argument_group("parts")
    group.add_argument(
        "--model_name_or_path", type=Path, required=True, help="LLM folder of transformers, or a GGUF file"
    )
    group.add_argument("--vision_tower", required=True, help="CLIP or SigLIP folder, or open_clip:NAME:FILE")
    group.add_argument("--audio_tower", type=Path, required=True, help="BEATs .pt file")
    group.add_argument(
        "--mm_vision_select_layer", type=int, default=-2, help="vision layer, from the end (-2)"
    )
    group.add_argument("--mm_projector_type", default="mlp2x_gelu", help="linear or mlpNx_gelu (mlp2x_gelu)")
    group.add_argument("--query_tokens_size", type=int, default=32, help="audio tokens per window (32)")
    group.add_argument("--audio_window_seconds", type=float, default=30.0, help="audio window (30)")
    group.add_argument(
        "--audio_qformer", type=Path, help="JSON with Q-Former sizes (two layers as wide as the audio tower)"
    )
    group.add_argument("--num_frames", type=int, default=8, help="frames per clip (8)")
    group.add_argument(
        "--feature_store", type=Path, default=Path("output/feature_store"), help="index of checked media"
    )
    group.add_argument("--quiet", action="store_true", help="no progress bars")
    add_data_flags(made)
    _add_training_flags(made)
    add_reporting_flags(made)
    made.set_defaults(deepspeed=None)
    return made


def _add_training_flags(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("training")
    group.add_argument("--num_train_epochs", type=int, default=1, help="passes over the data (1)")
    group.add_argument("--per_device_train_batch_size", type=int, default=8, help="per process (8)")
    group.add_argument("--gradient_accumulation_steps", type=int, default=1, help="batches per step (1)")
    group.add_argument("--learning_rate", type=float, default=1e-3, help="peak learning rate (1e-3)")
    group.add_argument("--warmup_ratio", type=float, default=0.03, help="share of rising rate (0.03)")
    group.add_argument("--seed", type=int, default=0, help="fresh weights and order of the data (0)")
    group.add_argument("--model_max_length", type=int, default=2048, help="longest prompt, in tokens (2048)")
    for name, help_text in (
        ("bf16", "bfloat16 LLM and autocast (False)"),
        ("gradient_checkpointing", "recompute activations of the LLM (False)"),
    ):
        group.add_argument(f"--{name}", type=boolean, metavar="BOOL", default=False, help=help_text)


def train_config(arguments: argparse.Namespace) -> TrainConfig:
    """The settings of the run."""
    return TrainConfig(
        epochs=arguments.num_train_epochs,
        per_device_batch=arguments.per_device_train_batch_size,
        accumulation=arguments.gradient_accumulation_steps,
        learning_rate=arguments.learning_rate,
        warmup_ratio=arguments.warmup_ratio,
        seed=arguments.seed,
        precision="bf16" if arguments.bf16 else "fp32",
        gradient_checkpointing=arguments.gradient_checkpointing,
        max_length=arguments.model_max_length,
    )


def main(arguments: argparse.Namespace) -> None:
    """Align, unless that was done already."""
    require_writable(arguments.output_dir)
    with only_run_in(arguments.output_dir):
        samples = read_all(arguments.data_path, None, arguments)
        align(arguments, [sample for group in samples.values() for sample in group])


def align(arguments: argparse.Namespace, samples: Sequence[Sample]) -> None:
    """Train projector and aligner and write the backbone; a finished and unchanged one is kept.

    Raises ValueError if the folder holds a backbone made with other settings.
    """
    folder, config = arguments.output_dir, train_config(arguments)
    accelerator = make_accelerator(config, arguments)
    with accelerator.main_process_first():
        llm = _llm_folder(arguments)
    bridge = BridgeConfig(
        arguments.mm_vision_select_layer,
        arguments.mm_projector_type,
        arguments.query_tokens_size,
        arguments.audio_window_seconds,
        read_json(arguments.audio_qformer) if arguments.audio_qformer else None,
    )
    vision = arguments.vision_tower
    paths = BackbonePaths(
        llm, vision if vision.startswith(OPEN_CLIP) else Path(vision), arguments.audio_tower
    )
    backbone = start(
        paths,
        bridge,
        seed=config.seed,
        device=accelerator.device,
        dtype=torch.bfloat16 if arguments.bf16 else torch.float32,
    )
    identity = run_identity(arguments, config, bridge, backbone, accelerator.num_processes)
    record, checkpoint = folder / "run.json", CheckpointFolder(folder / "checkpoint", identity, ADVICE)
    if arguments.overwrite:
        if accelerator.is_main_process and not checkpoint.matches():
            checkpoint.remove()
        accelerator.wait_for_everyone()
    elif (found := read_identity(record)) is not None:
        if differences := differing_keys(found, identity):
            raise ValueError(changed_message(folder, differences, ADVICE))
        log.info("%s: finished and unchanged, skipped", folder)
        return
    outputs = TowerOutputs(
        backbone.encoder, num_frames=arguments.num_frames, workers=arguments.dataloader_num_workers
    )
    reporting = Reporting(
        folder,
        every=arguments.logging_steps,
        save_every=arguments.save_steps,
        tensorboard=arguments.report_to == "tensorboard",
        progress=not arguments.quiet,
        title="alignment",
    )
    training = AlignmentTraining(backbone, outputs, samples, config, accelerator, checkpoint, reporting)
    summary = training.run()
    if accelerator.is_main_process:
        made = save_aligned(folder, backbone)
        write_record(record, identity, training=summary, made=made, provenance=provenance(summary["seconds"]))
        checkpoint.remove()
        log.info("%s: %d steps, loss %.4f", folder, summary["steps"], summary["final_loss"])
    accelerator.wait_for_everyone()


def _llm_folder(arguments: argparse.Namespace) -> Path:
    """The LLM as a folder; a GGUF file is converted into `llm` of the output folder."""
    source: Path = arguments.model_name_or_path
    if source.suffix != ".gguf":
        return source
    convert_gguf(source, arguments.output_dir / "llm")
    return Path(arguments.output_dir / "llm")


def run_identity(
    arguments: argparse.Namespace,
    config: TrainConfig,
    bridge: BridgeConfig,
    backbone: Backbone,
    processes: int,
) -> dict[str, Any]:
    """What decides the result, as JSON values."""
    settings = {
        key: value for key, value in config.identity().items() if "expert" not in key and "lora" not in key
    }
    identity = {
        "config": settings,
        "bridge": asdict(bridge),
        "num_frames": arguments.num_frames,
        "processes": processes,
        "data": {path.name: sha256_file(path) for path in arguments.data_path},
        "llm": backbone.identity,
        "vision_fingerprint": backbone.encoder.vision_fingerprint,
        "audio_fingerprint": backbone.encoder.audio_fingerprint,
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


if __name__ == "__main__":
    sys.exit(main_command(parser(), main))
