"""Flags: in which numbers and with which attention kernel the backbone runs (see loading.py)."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from model.language_model.loading import ATTENTION, BITS, Loading
from model.language_model.prefix import PrefixBounds

GB = 1e9


class MemoryAndDisk(argparse.Action):
    """One or two numbers."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any
    ) -> None:
        if len(values) > 2:
            raise argparse.ArgumentError(self, f"got {len(values)} numbers, expected memory and disk")
        setattr(namespace, self.dest, tuple(values))


def boolean(text: str) -> bool:
    """`True` or `False` as the published command lines write them."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"got {text!r}, expected True or False")


def add_precision_flags(group: argparse._ArgumentGroup) -> None:
    """`--bf16`, `--fp16`."""
    group.add_argument("--bf16", type=boolean, metavar="BOOL", help="bfloat16 backbone and autocast (False)")
    group.add_argument("--fp16", type=boolean, metavar="BOOL", help="float16 backbone and autocast (False)")


def add_loading_flags(group: argparse._ArgumentGroup) -> None:
    """Quantisation, attention kernel, number format of the towers."""
    bits = group.add_mutually_exclusive_group()
    bits.add_argument(
        "--bits",
        type=int,
        choices=BITS,
        default=16,
        help="quantise the LLM with bitsandbytes to 8 or 4 bits; needs a GPU (16: not quantised)",
    )
    for number in (8, 4):
        bits.add_argument(
            f"--load_in_{number}bit", dest="bits", action="store_const", const=number, help=f"--bits {number}"
        )
    group.add_argument(
        "--attn_implementation",
        choices=ATTENTION,
        help="attention kernel of the LLM; flash_attention_2 needs a GPU, 16 bits and flash-attn; blocks is "
        "the fastest with --bf16 True on a CPU (sdpa; tiny on a CPU: blocks)",
    )

    group.add_argument(
        "--tower_precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="matrix products of the towers, projector and aligner; features are kept apart: use one kind "
        "for training and evaluation (fp32)",
    )

    group.add_argument(
        "--prefix_cache_gb",
        type=float,
        nargs="+",
        action=MemoryAndDisk,
        default=(1.0,),
        metavar="GB",
        help="keys and values of prompts up to the experts' tokens (--expert_tokens text, answer): kept in "
        "memory and, second number, below the feature store on disk; each process (of --jobs, of a launch) "
        "keeps that much (1 0)",
    )


def loading(arguments: argparse.Namespace) -> Loading:
    """How the flags want the LLM loaded. Raises ValueError for --bf16 with --fp16."""
    bf16, fp16 = (getattr(arguments, name, None) for name in ("bf16", "fp16"))
    if bf16 and fp16:
        raise ValueError("--bf16 and --fp16 exclude each other; give one")
    dtype = torch.bfloat16 if bf16 else torch.float16 if fp16 else torch.float32
    towers = torch.bfloat16 if arguments.tower_precision == "bf16" else torch.float32
    memory, disk = (*arguments.prefix_cache_gb, 0.0)[:2]
    prefixes = PrefixBounds(round(memory * GB), round(disk * GB), arguments.feature_store)
    return Loading(dtype, arguments.bits, arguments.attn_implementation, towers, prefixes)
