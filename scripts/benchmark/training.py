"""Training: the published recipe against ours, whole job and language model alone.

    python scripts/benchmark/training.py [--quick]

The whole job is five epochs of one task, clips encoded on the way. It is not run: its seconds per sample are
put together from parts that are measured here, per sample too. Published `5 (2 E + L)`, ours `e + f + 4 l`,
with the towers' seconds E and e and those of a training step L, f and l: f of the first epoch, in which every
prefix that experts on `text` or `answer` leave alone is computed, l of the others, which find it kept. For
`all`, f is l. Every published step does the same work, so few are timed. With `--quick` there are two rows in
place of eight, and no call of either side is made before the one that is timed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch

from data.command_line import main_command
from data.samples import Sample
from model.language_model.backbone import BackbonePaths
from model.language_model.splice import PromptBatch
from model.moe.experts import ExpertConfig
from scripts.benchmark.mid import write_mid, write_questions
from scripts.benchmark.published import BATCH, PublishedRecipe
from scripts.benchmark.timing import kept_for_backward, opened, parser, seconds

EPOCHS = 5
OUR_BATCH, QUICK_BATCH = 8, BATCH
SCOPES = ("all", "text", "answer")


@dataclass(frozen=True)
class Repeats:
    """Calls that are timed, after so many that are not."""

    timed: int = 3
    warm_up: int = 1


@dataclass(frozen=True)
class Cost:
    """Seconds per sample and bytes kept for backward per sample."""

    encoding: float
    language: float  # of a step
    first: float  # of a step in which every prefix is computed
    kept: int = 0


def run(quick: bool = False) -> dict[str, float]:
    """All ratios by name; the seconds behind them are printed."""
    repeats = Repeats(timed=1, warm_up=0) if quick else Repeats()
    with tempfile.TemporaryDirectory() as place:
        paths = write_mid(Path(place) / "mid")
        samples = write_questions(Path(place) / "clips", clips=QUICK_BATCH if quick else OUR_BATCH)
        published = published_cost(paths, samples, Path(place) / "p", repeats)
        say("published recipe", published)
        ours: dict[str, Cost] = {}
        for tokens in SCOPES:
            cost = our_cost(paths, samples, Path(place) / "store", tokens, repeats)
            if ours:  # the clips are in the store after the first
                cost = replace(cost, encoding=ours[SCOPES[0]].encoding)
            ours[tokens] = cost
            say(f"ours, --expert_tokens {tokens}", cost)
    return ratios(published, ours)


def ratios(published: Cost, ours: Mapping[str, Cost]) -> dict[str, float]:
    """How many times as fast ours is, by name; `train.memory.text` is our bytes over those of `all`."""
    before = EPOCHS * (2 * published.encoding + published.language)
    found = {"train.towers": published.encoding / ours["all"].encoding}
    for tokens, cost in ours.items():
        after = cost.encoding + cost.first + (EPOCHS - 1) * cost.language
        found[f"train.job.{tokens}"] = before / after
        found[f"train.language.{tokens}"] = published.language / cost.language
        if tokens != "all":
            found[f"train.language.{tokens}.prefix_recomputed"] = published.language / cost.first
    found["train.memory.text"] = ours["text"].kept / ours["all"].kept
    return found


def say(name: str, cost: Cost) -> None:
    """One line of seconds and memory per sample."""
    print(
        f"  {name:<40} encoding {cost.encoding:7.2f} s, LLM step {cost.language:6.2f} s "
        f"({cost.first:.2f} s where prefixes are computed), {cost.kept / 2**20:7.1f} MiB kept for backward, "
        "per sample",
        flush=True,
    )


def published_cost(paths: BackbonePaths, samples: Sequence[Sample], store: Path, repeats: Repeats) -> Cost:
    """The published recipe, batch 2."""
    with opened(paths, store, ExpertConfig(kind="mlp"), ours=False) as room:
        room.model.enable_gradient_checkpointing()
        room.model.train()
        recipe = PublishedRecipe(room.model, room.inputs, room.store)
        optimizer = torch.optim.AdamW(room.bank.train_only(0), lr=4e-5)
        made: list[PromptBatch] = []

        def encode() -> None:
            made[:] = [recipe.prompts(samples[:BATCH], with_answers=True)]

        encoding = seconds(encode, repeats.timed) / BATCH
        step = partial(recipe.language_step, optimizer, made[0])
        language = seconds(step, repeats.timed, repeats.warm_up) / BATCH
    return Cost(encoding, language, language)


def our_cost(
    paths: BackbonePaths, samples: Sequence[Sample], store: Path, tokens: str, repeats: Repeats
) -> Cost:
    """Ours: bf16 (see `working_dtype`), LoRA of rank 16 on every even layer, loss at the answer, clips
    encoded once; the prefix that the experts leave alone computed in the first epoch's steps, then kept."""
    with opened(paths, store, ExpertConfig(tokens=tokens), ours=True) as room:
        encoding = seconds(lambda: room.inputs.encode(samples)) / len(samples)
        room.model.train()
        parameters = room.bank.train_only(0)
        optimizer = torch.optim.AdamW(parameters, lr=2e-4, fused=True)
        frozen = {p.untyped_storage().data_ptr() for p in room.model.parameters()}
        ids = [0] * len(samples)

        def loss() -> torch.Tensor:
            batch = room.inputs.batch(samples, with_answers=True)
            return room.model(batch, ids).sum  # type: ignore[no-any-return]

        def step() -> None:
            with room.bank.use(ids):
                loss().backward()
            optimizer.step()
            optimizer.zero_grad()

        def first_step() -> None:
            room.model.prefixes.clear()
            step()

        first = seconds(first_step, repeats.timed, repeats.warm_up) / len(samples)
        language = first if tokens == "all" else seconds(step, repeats.timed) / len(samples)
        held = kept_for_backward(loss, frozen) // len(samples)
    return Cost(encoding, language, first, held)


def main(arguments: argparse.Namespace) -> None:
    """Print the ratios."""
    for name, value in run(arguments.quick).items():
        print(f"{name:<45} {value:8.2f}")


if __name__ == "__main__":
    sys.exit(main_command(parser(__doc__), main))
