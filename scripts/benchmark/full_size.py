"""Training steps at the full size of a backbone, with random weights: seconds and memory beside the plan.

    python scripts/benchmark/full_size.py --rows 16 --json OUT        # the published 7B sizes; a GPU of 80 GB

No file of the backbone is read: sizes come from a `config.json` (`--config`) or are the published ones,
prompts are random ids with one video of 576 tokens and one sound of 50. Neither time nor memory depends on
values. `planned` is what --dry_run would say of the language model's part (model/planning/memory.py),
TFLOP/s are the planned FLOPs over the measured time. `prefixes kept`: from an earlier epoch; else every step
computes its own.
"""

from __future__ import annotations

import argparse
import gc
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from transformers import AutoModelForCausalLM

from data.command_line import main_command
from data.files import read_json, write_json_atomic
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import llm_config
from model.language_model.prefix import PrefixBounds
from model.language_model.splice import AUDIO_ID, IGNORE, VIDEO_ID, PromptBatch
from model.moe.experts import ExpertBank, ExpertConfig
from model.planning.flops import training_flops
from model.planning.memory import Setup, training_memory
from model.planning.sizes import BackboneSizes, PromptTokens
from model.planning.skeleton import Configs, build_skeleton, published_configs
from scripts.benchmark.timing import seconds

BEFORE, VIDEO, AUDIO, QUESTION, ANSWER = 35, 576, 50, 19, 3  # tokens of a prompt's parts
PROMPT = PromptTokens(before=BEFORE + VIDEO + AUDIO, after=QUESTION, answer=ANSWER)
GIB = 2**30


@dataclass(frozen=True)
class Case:
    """One way of training."""

    kind: str = "lora"
    tokens: str = "all"
    checkpointing: bool = False
    kept: bool = False


CASES = (
    Case(),
    Case(checkpointing=True),
    Case(tokens="text"),
    Case(tokens="text", kept=True),
    Case(tokens="answer"),
    Case(kind="mlp", checkpointing=True),
)


@dataclass(frozen=True)
class Measured:
    """What a case took; memory in GiB, None on a CPU, where a process's peak says nothing about one case."""

    case: Case
    rows: int
    seconds_per_sample: float
    tflops: float
    memory: float | None
    planned: float


def make_parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", type=int, default=16, help="samples of a step (16)")
    made.add_argument("--steps", type=int, default=4, help="timed steps, after one that is not (4)")
    made.add_argument("--config", type=Path, help="config.json of an LLM folder (the published 7B sizes)")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(cuda, cpu)")
    made.add_argument("--json", type=Path, help="write what is printed")
    return made


def main(arguments: argparse.Namespace) -> None:
    """Measure all cases that fit."""
    configs = published_configs()
    if arguments.config:
        configs = replace(configs, source=arguments.config, base=read_json(arguments.config))
    sizes, device = build_skeleton(configs).sizes, torch.device(arguments.device)
    llm = random_llm(configs, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    tokens = sum(PROMPT.scope("all"))
    print(f"{name}, torch {torch.__version__}, bf16, {arguments.rows} rows of {tokens} tokens", flush=True)
    found = []
    for case in CASES:
        try:
            found.append(measure(llm, sizes, case, arguments.rows, arguments.steps, device))
        except torch.OutOfMemoryError:
            print(f"{describe(case):<36} does not fit", flush=True)
            continue
        print(as_line(found[-1]), flush=True)
    if arguments.json:
        write_json_atomic(arguments.json, {"device": name, "cases": [asdict(one) for one in found]})


def random_llm(
    configs: Configs, device: torch.device, dtype: torch.dtype = torch.bfloat16
) -> torch.nn.Module:
    """The language model with random weights, frozen."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            llm = AutoModelForCausalLM.from_config(llm_config(configs.source, configs.base), dtype=dtype)
    finally:
        torch.set_default_dtype(before)
    return llm.eval().requires_grad_(False)  # type: ignore[no-any-return]


def prompts(
    rows: int,
    width: int,
    device: torch.device,
    seed: int,
    *,
    audio: int = AUDIO,
    dtype: torch.dtype = torch.bfloat16,
) -> PromptBatch:
    """Random prompts with media and answers. audio: tokens of the sound."""
    generator = torch.Generator().manual_seed(seed)

    def some(count: int) -> list[int]:
        return torch.randint(3, 999, (count,), generator=generator).tolist()

    ids = [[*some(BEFORE), VIDEO_ID, AUDIO_ID, *some(QUESTION), *some(ANSWER)] for _ in range(rows)]
    labels = [[IGNORE] * (len(row) - ANSWER) + row[-ANSWER:] for row in ids]
    media = [
        [torch.randn(n, width, generator=generator).to(device, dtype) for n in (VIDEO, audio)]
        for _ in range(rows)
    ]
    return PromptBatch(
        [torch.tensor(row, device=device) for row in ids],
        media,
        [torch.tensor(row, device=device) for row in labels],
    )


def measure(
    llm: torch.nn.Module, sizes: BackboneSizes, case: Case, rows: int, steps: int, device: torch.device
) -> Measured:
    """Seconds per sample and peak memory of one case, everything of it freed afterwards."""
    config = ExpertConfig(kind=case.kind, tokens=case.tokens)
    bank = ExpertBank(llm, config)
    bank.add(0, generator=torch.Generator().manual_seed(0))
    kept = rows * training_prefix(sizes, config) if case.kept else 0
    model = AnchorLM(llm, bank.to(device), PrefixBounds(memory=2 * kept))  # type: ignore[arg-type]
    if case.checkpointing:
        model.enable_gradient_checkpointing()
    try:
        model.train()
        taken = time_steps(model, rows, steps, sizes.llm.width, device, fresh=not case.kept)
        peak = torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None
    finally:
        for layer in model._layers():
            layer.gradient_checkpointing = False
        model.prefixes.clear()
        bank.detach()
        del model, bank
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    flops = training_flops(sizes.llm, config, PROMPT, checkpointing=case.checkpointing)
    done = flops.repeated + (0 if case.kept else flops.prefix)
    setup = Setup(rows, 1, 2, case.checkpointing)
    prefixes = rows if case.kept else int(case.tokens != "all")
    planned = training_memory(sizes, config, setup, PROMPT, prefixes=prefixes)
    return Measured(
        case, rows, taken / rows, done * rows / taken / 1e12, peak, (planned.total - planned.encoders) / GIB
    )


def training_prefix(sizes: BackboneSizes, config: ExpertConfig) -> int:
    """Bytes of one kept prefix in bf16."""
    past, _ = PROMPT.scope(config.tokens)
    return 4 * sizes.llm.layers * past * sizes.llm.keys


def time_steps(
    model: AnchorLM, rows: int, steps: int, width: int, device: torch.device, *, fresh: bool
) -> float:
    """Median seconds of a step; with `fresh` every step has prompts that were not seen before."""
    assert model.bank is not None
    bank, ids = model.bank, [0] * rows
    optimizer = torch.optim.AdamW(bank.train_only(0), lr=1e-4, fused=True)
    batches = iter([prompts(rows, width, device, seed if fresh else 0) for seed in range(steps + 1)])

    def step() -> None:
        with bank.use(ids):
            model(next(batches), ids).sum.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    return seconds(step, repeats=steps, warm_up=1)


def describe(case: Case) -> str:
    """`lora, text, prefixes kept`."""
    extra = [", checkpointing"] * case.checkpointing + [", prefixes kept"] * case.kept
    return f"{case.kind}, {case.tokens}{''.join(extra)}"


def as_line(one: Measured) -> str:
    """One case as text."""
    memory = "" if one.memory is None else f"{one.memory:7.2f} GiB, "
    return (
        f"{describe(one.case):<36} {one.seconds_per_sample * 1e3:8.1f} ms a sample, "
        f"{one.tflops:7.2f} TFLOP/s, {memory}planned {one.planned:6.2f} GiB"
    )


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
