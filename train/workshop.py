"""Opening the workshop: model, expert bank, accelerator and reporting from the flags of a training
command."""

from __future__ import annotations

import argparse
import os

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, InitProcessGroupKwargs

from data.files import read_json
from data.inputs import Inputs
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import Backbone
from model.moe.experts import ExpertBank
from train.config import TrainConfig
from train.reporting import Reporting
from train.run_cell import Workshop
from train.zero import use_gloo_alone

# What a launcher sets, for a process that was started without one.
ALONE = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",  # any free one: nobody else has to find it
}


def open_workshop(
    inputs: Inputs, backbone: Backbone, config: TrainConfig, arguments: argparse.Namespace, advice: str
) -> Workshop:
    """Attach an empty expert bank to the backbone and start the accelerator.

    advice: what the user of this command can do where a folder holds the work of other settings.
    """
    accelerator = make_accelerator(config, arguments)
    torch.backends.cuda.matmul.allow_tf32 = arguments.tf32
    bank = ExpertBank(backbone.llm, config.expert, backbone.identity)
    model = AnchorLM(backbone.llm, bank, backbone.loading.prefixes).to(accelerator.device)
    if config.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    reporting = Reporting(
        every=arguments.logging_steps,
        save_every=arguments.save_steps,
        tensorboard=arguments.report_to == "tensorboard",
        progress=not arguments.quiet,
    )
    return Workshop(model, bank, inputs, accelerator, config, reporting, arguments.overwrite, advice)


def make_accelerator(config: TrainConfig, arguments: argparse.Namespace) -> Accelerator:
    """The accelerator for this device and precision, with DeepSpeed where a configuration is given."""
    plugin, handlers, on_cpu = None, [], not torch.cuda.is_available()
    if arguments.deepspeed:
        settings = read_json(arguments.deepspeed)
        settings.update(
            train_micro_batch_size_per_gpu=config.per_device_batch,
            gradient_accumulation_steps=1,  # the training loop says itself where a step ends
            gradient_clipping=config.max_grad_norm,
        )
        for key in ("train_batch_size", "optimizer", "scheduler"):
            settings.pop(key, None)
        settings["zero_force_ds_cpu_optimizer"] = False  # ours, whose learning rate the schedule moves
        settings["bf16"] = {"enabled": False}  # it would round what learns; autocast leaves that in float32
        settings["torch_autocast"] = {
            "enabled": config.precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],  # nothing is sent in 16 bits
        }
        settings["fp16"] = {"enabled": config.precision == "fp16"}  # with its loss scaling
        plugin = DeepSpeedPlugin(hf_ds_config=settings)
        if on_cpu:  # accelerate leaves DeepSpeed out where it is told cpu=True, and knows no backend for it
            handlers.append(InitProcessGroupKwargs(backend="gloo"))
            use_gloo_alone()
            for name, value in ALONE.items():
                os.environ.setdefault(name, value)
    precision = None if plugin else {"fp32": "no"}.get(config.precision, config.precision)
    return Accelerator(
        cpu=on_cpu and plugin is None,
        mixed_precision=precision,
        deepspeed_plugin=plugin,
        kwargs_handlers=handlers,
    )
