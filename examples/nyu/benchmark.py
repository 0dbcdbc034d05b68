"""Speed and memory of one training step: the published formulation against ours, both sides in one run.

    python benchmark.py --size 288 384 --threads 2

Published: all experts' features stacked and concatenated for each task, dense dilated ASPP, torch's own
convolutions, one graph over all tasks, fp32. Ours: as main.py trains by default (no stack, taps that reach
the map only, task by task, encoders keep what dear convolutions put out and make the rest again, gradients of
convolutions by products of our own); in fp32, in fp32 with --no-recompute (kept), in bf16. ResNet-50,
--num_experts 1 1, batch 2 by default. A step is forward and backward. --sides picks some.

Each side is a process of its own, and they step in turn, so that a machine that slows down slows down all of
them; the others wait meanwhile, with their memory (16 GiB together at 288 x 384). Peak: the most that a
process ever held, Python and libraries included; start: what it held before its first step (libraries,
weights). Processor seconds are of all threads.

Gradients of ours in fp32 are compared with the published ones, ||ours - published|| / ||published||, over all
parameters as one vector and in the worst single tensor. A tensor whose gradient is a small difference of
large numbers holds little but rounding (the pooled branch of the ASPP normalises over no more values than the
batch has images; a bias before another normalisation moves nothing), hence both. --exact runs both sides in
float64 as well, where they must agree, and shows how far the published side in fp32 is from its own float64.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from data.manners import main_command
from examples.nyu.config import StudyConfig
from examples.nyu.study import make_trainer
from model.mtl.architectures import AOEMTL
from model.mtl.convolutions import KINDS
from model.mtl.heads import ReachingASPP
from train.mtl.trainer import Trainer
from train.reporting import Reporting

SIDES = ("published", "ours", "ours_kept", "ours_bf16")
EXACT = ("published_fp64", "ours_fp64")
COMPARED = (*SIDES[:2], *EXACT)
BASE = "published"
PAIRS = (("ours", "published"), ("published", "published_fp64"), ("ours_fp64", "published_fp64"))
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
    parser.add_argument("--exact", action="store_true", help="compare in float64 too")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, help="(all)")
    parser.add_argument("--side", help=argparse.SUPPRESS)  # the process of one
    parser.add_argument("--gradients", type=Path, help=argparse.SUPPRESS)
    return parser


def main(arguments: argparse.Namespace) -> None:
    """All sides and their ratios, or one side's process."""
    if arguments.side is not None:
        serve(arguments)
        return
    names = [BASE, *(side for side in arguments.sides if side != BASE)]
    with tempfile.TemporaryDirectory() as place:
        found = in_turn(names, arguments.steps, Path(place))
        if arguments.exact:
            for side in EXACT:
                in_turn([side], 0, Path(place))
        for pair in PAIRS:
            if all(Path(place, f"{side}.pt").exists() for side in pair):
                both = (torch.load(f"{place}/{side}.pt", mmap=True) for side in pair)
                print(f"gradients, {pair[0]} against {pair[1]}: {distance(*both)}")
    base = found[BASE]
    for side in names[1:]:
        ratios = {name: base[name] / found[side][name] for name in base}
        print(
            f"{side:<15}{ratios['seconds']:.2f} times as fast ({ratios['processor']:.2f} by processor time), "
            f"{1 / ratios['peak']:.2f} of the memory ({1 / ratios['step']:.2f} of what the step adds)"
        )


def in_turn(names: Sequence[str], steps: int, place: Path) -> dict[str, dict[str, float]]:
    """Median times of a side's step in seconds, and its memory in GiB."""
    sides = {
        name: Side(name, place) for name in names
    }  # each makes its first step before the next one starts
    times: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(steps):
        for name, side in sides.items():
            times[name].append(side.ask("step"))
    found = {}
    for name, side in sides.items():
        taken = times[name] or [side.first]
        median = {key: statistics.median(one[key] for one in taken) for key in taken[0]}
        found[name] = {**median, **side.ask("memory")}
        side.close()
        print(f"{name:<15}{as_line(found[name])}", flush=True)
    return found


class Side:
    """A process that makes steps of one side, when it is asked to.

    first: times of its first step.
    """

    def __init__(self, name: str, place: Path) -> None:
        extra = ["--side", name, *(["--gradients", f"{place}/{name}.pt"] if name in COMPARED else [])]
        self._name, self._errors = name, (place / f"{name}.err").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:], *extra],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.first = self.ask("step")

    def ask(self, what: str) -> dict[str, float]:
        """Its answer to "step" or "memory". Raises ValueError with its last words if it has died."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(f"{what}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._errors.seek(0)
        last = self._errors.read().strip()[-800:]
        self.close()
        raise ValueError(f"{self._name} failed: {last}")

    def close(self) -> None:
        """End it."""
        with self._process:  # closes what it reads from, on which it ends
            pass
        self._errors.close()


def as_line(found: Mapping[str, float]) -> str:
    """Times and memory of a side."""
    return (
        f"{found['seconds']:8.2f} s a step, {found['processor']:8.2f} s of processors, peak "
        f"{found['peak']:5.2f} GiB, {found['step']:5.2f} above the start"
    )


def serve(arguments: argparse.Namespace) -> None:
    """One side: a line in asks for a step or for memory, a line out answers."""
    torch.set_num_threads(arguments.threads)
    step, trainer = make_side(arguments)
    start = memory_now()
    for line in sys.stdin:
        if line.strip() == "memory":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
            if (
                arguments.gradients is not None
            ):  # of the last step, which is as all others; saving takes memory
                torch.save({n: p.grad for n, p in trainer.model.named_parameters()}, arguments.gradients)
            print(json.dumps({"peak": peak, "step": peak - start}), flush=True)
            continue
        trainer.model.zero_grad(set_to_none=True)
        torch.manual_seed(0)  # dropout
        started = time.perf_counter(), time.process_time()
        step()
        seconds = time.perf_counter() - started[0], time.process_time() - started[1]
        print(json.dumps({"seconds": seconds[0], "processor": seconds[1]}), flush=True)


def make_side(arguments: argparse.Namespace) -> tuple[Callable[[], object], Trainer]:
    """What makes a step, and whose step it is."""
    side = arguments.side
    published = side.startswith("published")
    config = StudyConfig(
        arch="AOEMTL",
        encoder=arguments.encoder,
        pretrained="none",
        num_experts=tuple(arguments.num_experts),
        img_size=(3, *arguments.size),
        precision="bf16" if side == "ours_bf16" else "no",
        recompute=side != "ours_kept" and not published,
    )
    accelerator = Accelerator(cpu=True, mixed_precision=config.precision)
    trainer = make_trainer(config, accelerator, Reporting())
    inputs, targets = random_batch(arguments.batch, *arguments.size)
    if side in EXACT:
        trainer.model.double()
        inputs, targets = inputs.double(), {task: target.double() for task, target in targets.items()}
    if published:
        make_dense(trainer.model)
        return partial(published_step, trainer, inputs, targets), trainer
    return partial(trainer.backward, inputs, targets), trainer


def memory_now() -> float:
    """GiB that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


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
    """Convolutions as torch has them."""
    for module in model.modules():
        if isinstance(module, KINDS):
            module.__class__ = nn.Conv2d
        elif isinstance(module, ReachingASPP):
            module.__class__ = ASPP
            module.to(memory_format=torch.contiguous_format)


class Distance(NamedTuple):
    """How far gradients are apart."""

    whole: float  # all as one vector, relative to its norm
    worst: float  # in the tensor where it is largest
    name: str  # of that tensor
    share: float  # its norm in that of all

    def __str__(self) -> str:
        return (
            f"{self.whole:.1e} off; worst tensor {self.name}, {self.worst:.1e}, which has {self.share:.1e} "
            "of the norm"
        )


def distance(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Distance:
    """||ours - theirs|| / ||theirs||."""
    apart = {name: float((ours[name].double() - g.double()).norm()) for name, g in theirs.items()}
    norms = {name: float(g.double().norm()) for name, g in theirs.items()}
    relative = {name: apart[name] / max(norms[name], 1e-300) for name in norms}
    worst = max(relative, key=lambda name: relative[name])
    whole = math.hypot(*norms.values())
    return Distance(math.hypot(*apart.values()) / whole, relative[worst], worst, norms[worst] / whole)


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
