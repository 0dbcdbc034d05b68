"""Cost curves: time and memory of ours against one size at a time, beside the machine's own limit.

    python scripts/benchmark/curves.py --json OUT.json --picture OUT.png
    python scripts/benchmark/curves.py --only rank rows

The language model has random weights and the middle size of the other benchmarks, experts of rank 16 on all
tokens of every even layer unless a curve says otherwise. The share of the limit is
`planned FLOPs / (seconds * peak)`: FLOPs as model/planning counts them, peak that of a large product of the
same type (bf16, or fp32 where the processor multiplies that faster), measured in the same run. What is below
1 went into everything that is no product, and into products that are too small to reach the peak.

Curves: `tasks` (experts held, answering a mixed batch of 8), `length` (of a clip: windows of sound of
10 s), `frames` (vision tower alone), `rank`, `rows` (of a training batch).
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from matplotlib.figure import Figure
from torch import Tensor
from transformers import PreTrainedModel

from data.command_line import main_command
from data.files import write_json_atomic
from evaluation.png import save_png
from model.encoders.beats import BEATsConfig
from model.language_model import block_attention
from model.language_model.anchor_lm import AnchorLM
from model.moe.experts import ExpertBank, ExpertConfig
from model.planning.flops import answer_flops, clip_flops, lora_flops, training_flops
from model.planning.sizes import BackboneSizes, PromptTokens
from model.planning.skeleton import Configs, build_skeleton
from scripts.benchmark import mid
from scripts.benchmark.full_size import ANSWER, AUDIO, BEFORE, QUESTION, VIDEO, prompts, random_llm
from scripts.benchmark.main import machine
from scripts.benchmark.timing import kept_for_backward, opened, product_peak, seconds, working_dtype

CONFIG = ExpertConfig(rank=16, alpha=32.0)
ROWS, ANSWERED, TOKENS = 2, 8, 8  # rows of a training batch, of an answered one, tokens of an answer
TASKS = (1, 4, 16, 64, 256, 1000)
WINDOWS = (1, 2, 4, 8)
FRAMES = (1, 4, 8, 16, 32)
RANKS = (4, 16, 64, 256)
BATCHES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Point:
    """One measurement of a curve."""

    x: float
    seconds: float  # per sample (frames: per clip)
    share: float  # of the peak of matrix products
    mebibytes: float | None  # kept for backward, per sample; of the experts held (tasks)


@dataclass(frozen=True)
class Bench:
    """What every curve needs."""

    llm: PreTrainedModel
    sizes: BackboneSizes
    peak: float  # FLOP/s
    repeats: int


def prompt_of(windows: int = 1) -> PromptTokens:
    """Lengths of a prompt with one video and so many windows of sound."""
    return PromptTokens(before=BEFORE + VIDEO + AUDIO * windows, after=QUESTION, answer=ANSWER)


@dataclass(frozen=True)
class Lesson:
    """A training step of new experts."""

    bank: ExpertBank
    forward: Callable[[], Tensor]
    step: Callable[[], None]
    frozen: set[int]  # addresses of parameters


def lesson(bench: Bench, config: ExpertConfig, rows: int, windows: int = 1) -> Lesson:
    """A step on random prompts; detach its bank afterwards."""
    bank = ExpertBank(bench.llm, config)
    bank.add(0, generator=torch.Generator().manual_seed(0))
    model = AnchorLM(bench.llm, bank).train()
    optimizer = torch.optim.AdamW(bank.train_only(0), lr=1e-4, fused=True)
    frozen = {p.untyped_storage().data_ptr() for p in model.parameters()}
    batch = prompts(
        rows, bench.sizes.llm.width, torch.device("cpu"), 0, audio=AUDIO * windows, dtype=working_dtype()
    )
    ids = [0] * rows

    def forward() -> Tensor:
        return model(batch, ids).sum  # type: ignore[no-any-return]

    def step() -> None:
        with bank.use(ids):
            forward().backward()
        optimizer.step()
        optimizer.zero_grad()

    return Lesson(bank, forward, step, frozen)


def training_point(bench: Bench, x: float, config: ExpertConfig, rows: int, windows: int = 1) -> Point:
    """Seconds of a training step and bytes kept for backward, per sample."""
    given = lesson(bench, config, rows, windows)
    taken = seconds(given.step, repeats=bench.repeats, warm_up=1) / rows
    kept = kept_for_backward(given.forward, given.frozen) / rows
    given.bank.detach()
    bench.llm.eval()
    flops = training_flops(bench.sizes.llm, config, prompt_of(windows), checkpointing=False).repeated
    return Point(x, taken, flops / taken / bench.peak, kept / 2**20)


def over_rank(bench: Bench) -> Iterator[Point]:
    """A training step."""
    for value in RANKS:
        yield training_point(bench, value, replace(CONFIG, rank=value, alpha=2.0 * value), ROWS)


def over_rows(bench: Bench) -> Iterator[Point]:
    """A training step."""
    for value in BATCHES:
        yield training_point(bench, value, CONFIG, value)


def over_length(bench: Bench) -> Iterator[Point]:
    """A training step of the language model; every window adds tokens."""
    for windows in WINDOWS:
        yield training_point(bench, windows * mid.SECONDS, CONFIG, ROWS, windows)


def over_tasks(bench: Bench) -> Iterator[Point]:
    """Answering a batch whose rows have different experts, as far as there are so many."""
    bank = ExpertBank(bench.llm, CONFIG)
    generator = torch.Generator().manual_seed(0)
    for count in TASKS:
        for task in range(len(bank.task_ids), count):
            bank.add(task, generator=generator)
        taken = seconds(answering(bench, bank), bench.repeats, warm_up=1)
        held = sum(p.numel() * p.element_size() for p in bank.experts.parameters())
        yield Point(count, taken / ANSWERED, answering_flops(bench) / taken / bench.peak, held / 2**20)
    bank.detach()


def answering(bench: Bench, bank: ExpertBank) -> Callable[[], object]:
    """Answers of a batch whose rows ask experts from first to last."""
    batch = prompts(ANSWERED, bench.sizes.llm.width, torch.device("cpu"), 0, dtype=working_dtype())
    ids = [row * len(bank.task_ids) // ANSWERED for row in range(ANSWERED)]
    no_end = bench.sizes.llm.vocabulary
    return partial(AnchorLM(bench.llm, bank).eval().generate, batch, ids, TOKENS, no_end)


def answering_flops(bench: Bench) -> float:
    """FLOPs of the whole batch."""
    prompt = sum(prompt_of().scope("all")) - ANSWER
    answer = answer_flops(bench.sizes.llm, prompt, TOKENS)
    return ANSWERED * (answer + lora_flops(bench.sizes.llm, CONFIG, prompt + TOKENS - 1))


def over_frames(bench: Bench) -> Iterator[Point]:
    """The vision tower and its projector on one clip."""
    with tempfile.TemporaryDirectory() as place:
        paths = mid.write_mid(Path(place) / "mid")
        with opened(paths, Path(place) / "store", CONFIG, ours=True) as room:
            encoder = room.inputs.encoder
            encoder.frame_memory.bound = 0  # the same clip is encoded again
            for count in FRAMES:
                clip = torch.randn(count, 3, *encoder.vision.image_size)
                taken = seconds(lambda clip=clip: encoder.encode_frames([clip]), bench.repeats, warm_up=1)
                flops = clip_flops(bench.sizes, count)
                yield Point(count, taken, flops / taken / bench.peak, None)


CURVES = {  # name -> label of the horizontal axis, points
    "tasks": ("experts held", over_tasks),
    "length": ("seconds of a clip's sound", over_length),
    "frames": ("frames of a clip", over_frames),
    "rank": ("LoRA rank", over_rank),
    "rows": ("rows of a training batch", over_rows),
}


def draw(found: Mapping[str, Sequence[Point]], path: Path) -> None:
    """A column for each curve: seconds above, share of the peak and memory below."""
    figure = Figure(figsize=(3.0 * len(found), 6.6), layout="constrained")
    panels = figure.subplots(3, len(found), squeeze=False, sharex="col")
    for column, (name, points) in enumerate(found.items()):
        x = [point.x for point in points]
        lines = (
            ("seconds a sample", [point.seconds for point in points]),
            ("share of the product peak", [point.share for point in points]),
            ("MiB", [point.mebibytes for point in points]),
        )
        for axes, (label, values) in zip(panels[:, column], lines, strict=True):
            if None in values:
                axes.set_visible(False)
                continue
            axes.plot(x, values, "o-", color="#1f5fa8", linewidth=1.4, markersize=4)
            axes.set_xscale("log", base=2)
            axes.set_xticks(x, [f"{value:g}" for value in x], fontsize=8)
            axes.set_ylim(0, 1.15 * max(values))
            axes.tick_params(labelsize=8)
            axes.spines[["top", "right"]].set_visible(False)
            if column == 0:
                axes.set_ylabel(label, fontsize=9)
        panels[0, column].set_title(name, fontsize=10)
        lowest = panels[2 if None not in lines[2][1] else 1, column]
        lowest.set_xlabel(CURVES[name][0], fontsize=9)
        lowest.tick_params(labelbottom=True)
    save_png(figure, path)


def make_parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--only", nargs="+", choices=sorted(CURVES), default=list(CURVES), help="(all)")
    made.add_argument("--repeats", type=int, default=3, help="timed calls of a point, after one that is not")
    made.add_argument("--json", type=Path, help="write every point, hardware and versions")
    made.add_argument("--picture", type=Path, help="write a PNG")
    return made


def middle(about: Mapping[str, Any], repeats: int) -> tuple[Bench, str]:
    """The language model of middle size on this machine, and the peak's name there."""
    vision = {"model_type": "clip_vision_model", **mid.VISION_CONFIG}
    configs = Configs(Path("mid"), mid.BASE_CONFIG, vision, BEATsConfig(**mid.AUDIO_CONFIG), {})
    llm = random_llm(configs, torch.device("cpu"), working_dtype())
    block_attention.register()
    llm.set_attn_implementation(block_attention.NAME)
    key = "peak_gflops_bf16" if working_dtype() is torch.bfloat16 else "peak_gflops_fp32"
    return Bench(llm, build_skeleton(configs).sizes, about[key] * 1e9, repeats), key


def main(arguments: argparse.Namespace) -> None:
    """Measure the curves and print them."""
    about = machine()
    bench, key = middle(about, arguments.repeats)
    found: dict[str, list[Point]] = {}
    for name in arguments.only:
        label, points = CURVES[name]
        print(f"{label:>26}  seconds  share of the peak  MiB", flush=True)
        for point in points(bench):
            found.setdefault(name, []).append(point)
            memory = "" if point.mebibytes is None else f"{point.mebibytes:9.1f}"
            print(f"{point.x:>26g} {point.seconds:8.3f} {point.share:10.2f} {memory}", flush=True)
            gc.collect()  # a model holds itself through its prefix cache, and with it its experts
    about[key] = max(about[key], round(product_peak(working_dtype()) / 1e9))  # a machine may have got faster
    shrink = bench.peak / (about[key] * 1e9)
    found = {
        name: [replace(point, share=point.share * shrink) for point in points]
        for name, points in found.items()
    }
    print(f"{key} {about[key]}, by which the shares above are {shrink:.2f} of what is written")
    if arguments.json:
        curves = {name: [asdict(point) for point in points] for name, points in found.items()}
        write_json_atomic(arguments.json, {"machine": about, "curves": curves})
    if arguments.picture:
        draw(found, arguments.picture)


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
