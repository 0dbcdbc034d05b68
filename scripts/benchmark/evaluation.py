"""Evaluation: the published recipe against ours, per distinct answer and for a whole accuracy matrix.

    python scripts/benchmark/evaluation.py [--quick]

An answer is one sample answered by one expert. Published: batch 1, fp32, towers run twice per answer. Ours:
clips encoded once, experts mixed in a batch of 8, answers made once per sample and expert, one process of one
thread per core as `--threads 1` has it. Seconds per answer: published `2 E + G`, ours `e + g` (one question
per clip). A matrix of four stages asks each of the
first k tasks after stage k: published `(1 + 2 + 3 + 4) (2 E + G)` per question of a task; ours answers each
question once (routing sends it to the same expert at every stage) or, at worst, with each of the four: both
are reported. `eval.towers.share_of_peak` is what the encoding of clips, decoding and storing included,
reaches of the matrix products that the machine does at most, measured beside it.

Answers of a mixed batch in fp32 are compared with those of batch 1, token by token up to the first step that
is undecided (margin of the two best logits under 0.005); differences before it are counted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from torch import Tensor

from data.command_line import main_command
from data.parallel import count_cores, in_shares
from data.samples import Sample
from model.language_model.backbone import BackbonePaths
from model.moe.experts import ExpertConfig
from model.planning.flops import clip_flops, sound_flops
from model.planning.skeleton import build_skeleton, read_configs
from scripts.benchmark.mid import FRAMES, write_mid, write_questions
from scripts.benchmark.published import PublishedRecipe
from scripts.benchmark.timing import Side, opened, parser, product_peak, seconds, working_dtype

STAGES = 4
BATCH = 8
ANSWER = 5  # tokens of an answer
MARGIN = 0.005


def run(quick: bool = False) -> dict[str, float]:
    """All ratios by name; the seconds behind them are printed."""
    jobs = count_cores()
    with tempfile.TemporaryDirectory() as place:
        paths = write_mid(Path(place) / "mid")
        samples = write_questions(Path(place) / "clips", clips=BATCH * jobs)
        before = published_seconds(paths, samples, Path(place) / "p", repeats=1 if quick else 3)
        print(f"  published recipe {before:.2f} s per answer", flush=True)
        found = {}
        for tokens in ("all", "text"):
            with opened(paths, Path(place) / tokens, ExpertConfig(tokens=tokens), ours=True) as side:
                side.inputs.encoder.round_parts()  # once at the start of a run
                peak = product_peak(working_dtype())
                encoding = seconds(lambda: side.inputs.encode(samples, jobs=jobs)) / len(samples)
                peak = max(peak, product_peak(working_dtype()))
                answer = our_seconds(side, samples, jobs, repeats=1 if quick else 3)
            print(f"  ours, {tokens}: encoding {encoding:.2f} s, answer {answer:.2f} s", flush=True)
            found["eval.towers.share_of_peak"] = tower_flops(paths) / encoding / peak
            once = encoding + answer
            found[f"eval.answer.{tokens}"] = before / once
            stages = STAGES * (STAGES + 1) / 2
            found[f"eval.matrix.{tokens}"] = stages * before / (STAGES * once)
            found[f"eval.matrix.{tokens}.worst"] = (
                stages * before / (STAGES * encoding + STAGES * STAGES * answer)
            )
        with opened(paths, Path(place) / "exact", ExpertConfig(), ours=False) as side:
            early, total = differences(side, samples[:BATCH])
        found["eval.differing_answers"], found["eval.answers"] = early, total
    return found


def published_seconds(paths: BackbonePaths, samples: Sequence[Sample], store: Path, repeats: int) -> float:
    """Per answer, the first one not timed."""
    with opened(paths, store, ExpertConfig(kind="mlp"), ours=False) as side:
        recipe = PublishedRecipe(side.model, side.inputs, side.store)
        todo = iter(samples)
        return seconds(lambda: recipe.answer(next(todo), 0, ANSWER), repeats, warm_up=1)


def tower_flops(paths: BackbonePaths) -> int:
    """Of one clip with its sound."""
    sizes = build_skeleton(read_configs(paths)).sizes
    return clip_flops(sizes, FRAMES) + sound_flops(sizes, 1)


def our_seconds(side: Side, samples: Sequence[Sample], jobs: int, repeats: int) -> float:
    """Per answer, a batch in which four experts are mixed for each of the processes."""
    add_experts(side)
    side.inputs.batch(samples, with_answers=False)  # features of the clips into memory

    def answer(share: int, shares: int) -> None:
        side.model.prefixes.clear()
        mine = samples[share::shares]
        batch = side.inputs.batch(mine, with_answers=False)
        side.model.generate(batch, experts_of(mine), ANSWER, eos_id=-1)

    return seconds(lambda: in_shares(answer, jobs), repeats, warm_up=1) / len(samples)


def add_experts(side: Side) -> None:
    """Experts 0 to 3 with weights that change answers."""
    for task in range(STAGES):
        generator = torch.Generator().manual_seed(task)
        shapes = side.bank.expected_shapes()
        state = {key: 0.02 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
        side.bank.load_state(task, state)


def experts_of(samples: Sequence[Sample]) -> list[int]:
    """Every sample's expert, mixed over the batch."""
    return [number % STAGES for number in range(len(samples))]


def differences(side: Side, samples: Sequence[Sample]) -> tuple[int, int]:
    """Answers of a mixed batch that differ from batch 1 before fp32 is undecided, and answers compared."""
    add_experts(side)
    side.inputs.encode(samples)
    ids = experts_of(samples)
    mixed = side.model.generate(side.inputs.batch(samples, with_answers=False), ids, ANSWER, eos_id=-1)
    early = 0
    for sample, expert, answer in zip(samples, ids, mixed, strict=True):
        batch = side.inputs.batch([sample], with_answers=False)
        alone = side.model.generate(batch, [expert], ANSWER, eos_id=-1)[0]
        for step, (one, other) in enumerate(zip(alone, answer, strict=True)):
            if margin(side, sample, expert, alone[:step]) < MARGIN:
                break
            if one != other:
                early += 1
                break
    return early, len(samples)


def margin(side: Side, sample: Sample, expert: int, so_far: Sequence[int]) -> float:
    """Distance of the two best logits of the next token."""
    batch = side.inputs.batch([sample], with_answers=False)
    ids = torch.cat([batch.input_ids[0], torch.tensor(so_far, dtype=torch.int64)])
    with torch.no_grad():
        logits: Tensor = side.model.logits(type(batch)([ids], batch.media), [expert])[0][-1]
    best = logits.topk(2).values
    return float(best[0] - best[1])


def main(arguments: argparse.Namespace) -> None:
    """Print the ratios."""
    for name, value in run(arguments.quick).items():
        print(f"{name:<45} {value:8.2f}")


if __name__ == "__main__":
    sys.exit(main_command(parser(__doc__), main))
