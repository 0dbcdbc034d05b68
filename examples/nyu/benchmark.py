"""Speed and memory of one training step: the published formulation against ours, both sides in one run.

    python benchmark.py --size 288 384 --threads 2

Published: all experts' features stacked and concatenated for each task, dense dilated ASPP, one graph over
all tasks, fp32. Ours: no stack, taps that reach the map only, task by task; in fp32, in fp32 with
--recompute_shared (lean), in bf16. ResNet-50,
--num_experts 1 1, batch 2 by default. A step is forward and backward. Each side runs in a process of its own,
whose largest memory is reported; gradients of ours in fp32 are compared tensor by tensor, relative to the
largest entry.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from data.command_line import main_command
from examples.nyu.config import StudyConfig
from examples.nyu.study import make_trainer
from model.mtl.architectures import AOEMTL
from model.mtl.dilated import ReachingConv2d
from train.mtl.trainer import Trainer
from train.reporting import Reporting

SIDES = ("published", "ours", "ours_lean", "ours_bf16")
EPS = 1e-8


def make_parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=2, default=(144, 192), help="height and width (144 192)")
    parser.add_argument("--batch", type=int, default=2, help="(2)")
    parser.add_argument("--num_experts", type=int, nargs="+", default=[1, 1], help="(1 1)")
    parser.add_argument("--encoder", choices=("resnet50", "plain"), default="resnet50", help="(resnet50)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one that is not (3)")
    parser.add_argument("--threads", type=int, default=2, help="(2)")
    parser.add_argument("--side", choices=SIDES, help="one side only, in this process")
    parser.add_argument("--gradients", type=Path, help=argparse.SUPPRESS)
    return parser


def main(arguments: argparse.Namespace) -> None:
    """One side, or all of them and their ratios."""
    if arguments.side is not None:
        print(json.dumps(run_side(arguments)))
        return
    with tempfile.TemporaryDirectory() as place:
        found = {}
        for side in SIDES:
            extra = ["--side", side]
            if side in SIDES[:2]:
                extra += ["--gradients", f"{place}/{side}.pt"]
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], *extra], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise ValueError(f"{side} failed: {done.stderr.strip()[-800:]}")
            found[side] = json.loads(done.stdout.strip().splitlines()[-1])
            seconds, peak = found[side]["seconds"], found[side]["peak_gib"]
            print(f"{side:<10} {seconds:8.2f} s a step, {peak:6.2f} GiB at most", flush=True)
        error = largest_error(*(torch.load(f"{place}/{side}.pt") for side in SIDES[:2]))
    base = found["published"]
    for side in SIDES[1:]:
        speed = base["seconds"] / found[side]["seconds"]
        memory = found[side]["peak_gib"] / base["peak_gib"]
        print(f"{side:<10} {speed:.2f} times as fast, {memory:.2f} of the memory")
    print(f"gradients  {error:.1e} off at most, relative to the largest entry of each tensor")


def run_side(arguments: argparse.Namespace) -> dict[str, float]:
    """Median time of a step and the largest memory of this process."""
    torch.set_num_threads(arguments.threads)
    half = arguments.side == "ours_bf16"
    config = StudyConfig(
        arch="AOEMTL",
        encoder=arguments.encoder,
        pretrained="none",
        num_experts=tuple(arguments.num_experts),
        img_size=(3, *arguments.size),
        precision="bf16" if half else "no",
        recompute_shared=arguments.side == "ours_lean",
    )
    accelerator = Accelerator(cpu=True, mixed_precision=config.precision)
    trainer = make_trainer(config, accelerator, Reporting())
    batch = random_batch(arguments.batch, *arguments.size)

    if arguments.side == "published":
        make_dense(trainer.model)
    seconds = []
    for number in range(arguments.steps + 1):
        trainer.model.zero_grad(set_to_none=True)
        torch.manual_seed(number)
        started = time.perf_counter()
        if arguments.side == "published":
            published_step(trainer, *batch)
        else:
            trainer.backward(*batch)
        seconds.append(time.perf_counter() - started)
        if number == 0 and arguments.gradients is not None:  # the first step: both sides in the same state
            names = trainer.model.named_parameters()
            torch.save({name: p.grad for name, p in names}, arguments.gradients)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    return {"seconds": sorted(seconds[1:])[arguments.steps // 2], "peak_gib": peak}


def random_batch(count: int, height: int, width: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Images and targets of the right kinds."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(count, 3, height, width, generator=generator)
    return torch.rand(count, 3, height, width, generator=generator), {
        "segmentation": torch.randint(-1, 13, (count, height, width), generator=generator).float(),
        "depth": 1 + torch.rand(count, 1, height, width, generator=generator),
        "normal": nn.functional.normalize(normal, dim=1),
    }


def published_step(trainer: Trainer, inputs: Tensor, targets: dict[str, Tensor]) -> None:
    """Stack, concatenate, weigh; one graph over all tasks."""
    model = trainer.model
    assert isinstance(model, AOEMTL)
    shared = torch.stack([expert(inputs) for expert in model.experts_shared])
    losses = []
    for task, rule in trainer.tasks.items():
        own = torch.stack([expert(inputs) for expert in model.experts_specific[task]])
        features = torch.cat([shared, own])  # (E, B, C, h, w)
        norms = torch.linalg.vector_norm(features.flatten(2), dim=2)
        weights = norms / (norms.sum(0, keepdim=True) + EPS)
        fused = torch.einsum("eb...,eb->b...", features, weights)
        output = model.decoders[task](fused)
        losses.append(rule.loss(rule.prepare(output, targets[task]), targets[task]))
    sum(losses).backward()


def make_dense(model: nn.Module) -> None:
    """Dilated convolutions as torch has them."""
    for module in model.modules():
        if isinstance(module, ReachingConv2d):
            module.__class__ = nn.Conv2d


def largest_error(published: dict[str, Tensor], ours: dict[str, Tensor]) -> float:
    """Largest difference of a gradient over the largest entry of its tensor."""
    errors = [float((ours[n] - g).abs().max() / g.abs().max().clamp(min=1e-12)) for n, g in published.items()]
    return max(errors)


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
