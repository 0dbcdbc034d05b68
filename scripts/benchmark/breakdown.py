"""Where the time goes: a training step and an answer of the middle-sized language model, split by operation.

    python scripts/benchmark/breakdown.py --json OUT.json

Both are as in curves.py: a step of two rows with an expert of rank 16 on all tokens, and answers of eight
tokens to a batch of eight rows with as many experts. `share_of_peak` is `planned FLOPs / (seconds * peak)`,
measured without the profiler. Then shares of the processor time that torch.profiler finds each operation to
spend in itself:

    products       matrix products outside attention: the layers, the experts and the logits
    attention      all that block attention does, its products too
    elementwise    normalisation, activations, rotary embedding, sums, the loss
    copies         copies, changes of type, concatenation, selection, filling
    optimiser      its step
    rest           views, autograd and Python between operations

`products_share_of_peak` is what products and attention together reach while they run: planned FLOPs over
their share of the seconds. It is below 1 where they are too small for the peak, or wait for memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from data.command_line import main_command
from data.files import write_json_atomic
from model.moe.experts import ExpertBank
from model.planning.flops import training_flops
from scripts.benchmark.curves import (
    ANSWERED,
    CONFIG,
    ROWS,
    Bench,
    answering,
    answering_flops,
    lesson,
    middle,
    prompt_of,
)
from scripts.benchmark.main import machine
from scripts.benchmark.timing import product_peak, seconds, working_dtype

WHOLE = "whole"  # the event around all others
WITHIN = {"BlockAttention": "attention", "Optimizer.step": "optimiser"}  # part of a name -> what is in there
PARTS = {
    "products": "mm addmm addmm_ bmm baddbmm baddbmm_ mv addmv dot mkldnn_linear",
    "copies": "copy_ _to_copy clone contiguous cat stack fill_ zero_ full zeros ones masked_fill "
    "masked_fill_ index index_put_ _index_put_impl_ index_select index_copy index_copy_ index_add "
    "index_add_ embedding gather scatter repeat new_zeros slice_backward select_backward constant_pad_nd "
    "resize_ empty empty_strided",
    "elementwise": "add add_ sub rsub mul mul_ div div_ neg pow rsqrt sqrt cos sin mean sum silu "
    "silu_backward gelu exp log softmax _softmax _log_softmax _log_softmax_backward_data argmax sigmoid "
    "nll_loss_forward nll_loss_backward maximum where rms_norm _fused_rms_norm _fused_rms_norm_backward eq "
    "ne le all cumsum bitwise_and bitwise_or_ logical_and",
}
PART_OF = {f"aten::{name}": part for part, names in PARTS.items() for name in names.split()}
NAMES = ("products", "attention", "elementwise", "copies", "optimiser", "rest")


def shares(work: Callable[[], object]) -> dict[str, float]:
    """Part -> its share of the processor time of a call."""
    with profile(activities=[ProfilerActivity.CPU]) as found, record_function(WHOLE):
        work()
    spent = dict.fromkeys(NAMES, 0.0)
    for event in found.events():
        if WHOLE in (above := list(names_above(event))):
            spent[part_of(above)] += event.self_cpu_time_total
    total = sum(spent.values())
    return {name: round(taken / total, 4) for name, taken in spent.items()}


def names_above(event: FunctionEvent | None) -> Iterator[str]:
    """Its own name, and those of what it is a part of."""
    while event is not None:
        yield event.name
        event = event.cpu_parent


def part_of(names: list[str]) -> str:
    """The part that an operation belongs to, by its name and those above it."""
    for name in names:
        for piece, part in WITHIN.items():
            if piece in name:
                return part
    return PART_OF.get(names[0], "rest")


def measured(work: Callable[[], object], flops: float, rows: int, bench: Bench) -> dict[str, float]:
    """Seconds a row, share of the peak and the parts of a call."""
    taken = seconds(work, bench.repeats, warm_up=1)
    parts = shares(work)
    reached = flops / taken / bench.peak
    return {
        "seconds_per_sample": taken / rows,
        "share_of_peak": reached,
        "products_share_of_peak": reached / (parts["products"] + parts["attention"]),
        **parts,
    }


def make_parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--repeats", type=int, default=3, help="timed calls, after one that is not (3)")
    made.add_argument("--json", type=Path, help="write what is printed, hardware and versions")
    return made


def main(arguments: argparse.Namespace) -> None:
    """Measure both and print them."""
    about = machine()
    bench, key = middle(about, arguments.repeats)
    given = lesson(bench, CONFIG, ROWS)
    flops = training_flops(bench.sizes.llm, CONFIG, prompt_of(), checkpointing=False).repeated
    found = {"training": measured(given.step, ROWS * flops, ROWS, bench)}
    given.bank.detach()
    bench.llm.eval()
    bank = ExpertBank(bench.llm, CONFIG)
    for task in range(ANSWERED):
        bank.add(task, generator=torch.Generator().manual_seed(task))
    found["answer"] = measured(answering(bench, bank), answering_flops(bench), ANSWERED, bench)
    about[key] = max(about[key], round(product_peak(working_dtype()) / 1e9))  # a machine may have got faster
    for name, values in found.items():
        for share in ("share_of_peak", "products_share_of_peak"):
            values[share] *= bench.peak / (about[key] * 1e9)
        print(f"{name}: {key} {about[key]}")
        for part, value in values.items():
            print(f"  {part:<24} {value:8.3f}", flush=True)
    if arguments.json:
        write_json_atomic(arguments.json, {"machine": about, "parts": found})


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
