"""Evaluation: the published recipe against ours, per distinct answer and for a whole accuracy matrix.

    python scripts/benchmark/evaluation.py [--quick]

An answer is one sample answered by one expert. Published: batch 1, fp32, towers run twice per answer. Ours:
clips encoded once, experts mixed in a batch of 8 (`--quick`: of 2), answers made once per sample and expert,
one process of one thread per core as `--threads 1` has it. Seconds per answer: published `2 E + G`, ours
`e + g` (one question per clip). A matrix of four stages asks each of the
first k tasks after stage k: published `(1 + 2 + 3 + 4) (2 E + G)` per question of a task; ours answers each
question once (routing sends it to the same expert at every stage) or, at worst, with each of the four: both
are reported. `eval.towers.share_of_peak` is what the encoding of clips, decoding and storing included,
reaches of the matrix products that the machine does at most, measured beside it. With `--quick` no call of
either side is made before the one that is timed.

The answers that were timed, those of the experts on `all` tokens and on `text`, are compared with answers of
batch 1 in fp32 (clips, weights, sdpa; experts on the same tokens), token by token up to the first step that
is undecided there (margin of the two best logits under 0.005); differences before it are counted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from torch import Tensor, nn

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

SCOPES = ("all", "text")
STAGES = 4
BATCH, QUICK_BATCH = 8, 2  # rows of a process
COMPARED = 8  # answers of a scope, at most
ANSWER = 5  # tokens of an answer
MARGIN = 0.005


def run(quick: bool = False) -> dict[str, float]:
    """All ratios by name; the seconds behind them are printed."""
    jobs = count_cores()
    repeats, warm_up = (1, 0) if quick else (3, 1)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        paths, store = write_mid(Path(place) / "mid"), Path(place) / "store"
        samples = write_questions(Path(place) / "clips", clips=(QUICK_BATCH if quick else BATCH) * jobs)
        before = published_seconds(paths, samples, Path(place) / "p", repeats, warm_up)
        print(f"  published recipe {before:.2f} s per answer", flush=True)
        encoding, answered = 0.0, {}
        for tokens in SCOPES:
            with opened(paths, store, ExpertConfig(tokens=tokens), ours=True) as side:
                if not encoding:  # the second scope finds the clips in the store
                    encoding, peak = encoding_seconds(side, samples, jobs)
                    found["eval.towers.share_of_peak"] = tower_flops(paths) / encoding / peak
                answer, answered[tokens] = our_seconds(side, samples, jobs, repeats, warm_up)
            print(f"  ours, {tokens}: encoding {encoding:.2f} s, answer {answer:.2f} s", flush=True)
            once, stages = encoding + answer, STAGES * (STAGES + 1) / 2
            found[f"eval.answer.{tokens}"] = before / once
            found[f"eval.matrix.{tokens}"] = stages * before / (STAGES * once)
            found[f"eval.matrix.{tokens}.worst"] = (
                stages * before / (STAGES * encoding + STAGES * STAGES * answer)
            )
        with opened(paths, store, ExpertConfig(), ours=False) as side:
            add_experts(side)
            for tokens, answers in answered.items():
                side.bank.config = replace(side.bank.config, tokens=tokens)
                early = differences(side, samples[:COMPARED], answers, jobs)
                found[f"eval.differing_answers.{tokens}"] = early
        found["eval.answers"] = len(samples[:COMPARED])
    return found


def published_seconds(
    paths: BackbonePaths, samples: Sequence[Sample], store: Path, repeats: int, warm_up: int
) -> float:
    """Per answer, after so many that are not timed."""
    with opened(paths, store, ExpertConfig(kind="mlp"), ours=False) as side:
        recipe = PublishedRecipe(side.model, side.inputs, side.store)
        todo = iter(samples)
        return seconds(lambda: recipe.answer(next(todo), 0, ANSWER), repeats, warm_up)


def tower_flops(paths: BackbonePaths) -> int:
    """Of one clip with its sound."""
    sizes = build_skeleton(read_configs(paths)).sizes
    return clip_flops(sizes, FRAMES) + sound_flops(sizes, 1)


def encoding_seconds(side: Side, samples: Sequence[Sample], jobs: int) -> tuple[float, float]:
    """Per clip, and the peak of matrix products meanwhile."""
    side.inputs.encoder.round_parts()  # once at the start of a run
    peak = product_peak(working_dtype())
    encoding = seconds(lambda: side.inputs.encode(samples, jobs=jobs)) / len(samples)
    return encoding, max(peak, product_peak(working_dtype()))


def our_seconds(
    side: Side, samples: Sequence[Sample], jobs: int, repeats: int, warm_up: int
) -> tuple[float, list[list[int]]]:
    """Per answer, a batch in which four experts are mixed for each of the processes; and the answers."""
    add_experts(side)
    side.inputs.batch(samples, with_answers=False)  # features of the clips into memory
    told: list[list[list[int]]] = []

    def answer(share: int, shares: int) -> list[list[int]]:
        side.model.prefixes.clear()
        batch = side.inputs.batch(samples[share::shares], with_answers=False)
        ids = experts_of(samples, shares)[share::shares]
        return side.model.generate(batch, ids, ANSWER, eos_id=-1)

    def answer_all() -> None:
        told[:] = in_shares(answer, jobs)

    taken = seconds(answer_all, repeats, warm_up) / len(samples)
    return taken, [told[number % jobs][number // jobs] for number in range(len(samples))]


def add_experts(side: Side) -> None:
    """Experts 0 to 3 with weights that change answers."""
    for task in range(STAGES):
        generator = torch.Generator().manual_seed(task)
        shapes = side.bank.expected_shapes()
        state = {key: 0.02 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
        side.bank.load_state(task, state)


def experts_of(samples: Sequence[Sample], jobs: int) -> list[int]:
    """Every sample's expert, mixed over the batch of each process."""
    return [number // jobs % STAGES for number in range(len(samples))]


def differences(side: Side, samples: Sequence[Sample], answers: Sequence[Sequence[int]], jobs: int) -> int:
    """How many of these samples' answers, the first ones, differ from batch 1 before that is undecided.

    Args:
        side: fp32, the experts that answered, on the tokens that they answered with.
    """
    side.inputs.encode(samples)
    early = 0
    for sample, expert, answer in zip(samples, experts_of(samples, jobs), answers, strict=False):
        alone, margins = answer_alone(side, sample, expert)
        for one, other, margin in zip(alone, answer, margins, strict=True):
            if margin < MARGIN:
                break
            if one != other:
                early += 1
                break
    return early


def answer_alone(side: Side, sample: Sample, expert: int) -> tuple[list[int], list[float]]:
    """An answer of batch 1, and for each token the distance of the two best logits."""
    margins = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        best = logits[0].topk(2).values
        margins.append(float(best[0] - best[1]))

    hook = side.model.llm.get_output_embeddings().register_forward_hook(note)
    try:
        batch = side.inputs.batch([sample], with_answers=False)
        return side.model.generate(batch, [expert], ANSWER, eos_id=-1)[0], margins
    finally:
        hook.remove()


def main(arguments: argparse.Namespace) -> None:
    """Print the ratios."""
    for name, value in run(arguments.quick).items():
        print(f"{name:<45} {value:8.2f}")


if __name__ == "__main__":
    sys.exit(main_command(parser(__doc__), main))
