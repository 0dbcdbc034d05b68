"""Training: the published recipe against ours, whole job and language model alone.

    python scripts/benchmark/training.py [--quick]

The whole job is five epochs of one task, clips encoded on the way, seconds per sample: published
`5 (2 E + L)`, ours `e + 5 l`, with the towers' seconds E and e and those of a training step L and l, each per
sample and measured here. Every published step does the same work, so few are timed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch

from data.command_line import main_command
from data.samples import Sample
from model.language_model.backbone import BackbonePaths
from model.language_model.prefix import PrefixBounds, PrefixCache
from model.moe.experts import ExpertConfig
from scripts.benchmark.mid import write_mid, write_questions
from scripts.benchmark.published import BATCH, PublishedRecipe
from scripts.benchmark.timing import kept_for_backward, opened, parser, seconds

EPOCHS = 5
OUR_BATCH = 8


@dataclass(frozen=True)
class Cost:
    """Seconds per sample and bytes kept for backward per sample."""

    encoding: float
    language: float
    kept: int = 0


def run(quick: bool = False) -> dict[str, float]:
    """All ratios by name; the seconds behind them are printed."""
    with tempfile.TemporaryDirectory() as place:
        paths = write_mid(Path(place) / "mid")
        samples = write_questions(Path(place) / "clips", clips=OUR_BATCH)
        published = published_cost(paths, samples, Path(place) / "p", steps=1 if quick else 3)
        say("published recipe", published)
        ours = {}
        for tokens in ("all", "text", "answer"):
            ours[tokens] = our_cost(
                paths, samples, Path(place) / tokens, tokens, steps=1 if quick else 3, kept=True
            )
            say(f"ours, --expert_tokens {tokens}", ours[tokens])
        again = our_cost(paths, samples, Path(place) / "text", "text", steps=1 if quick else 3, kept=False)
        say("ours, text, prefix computed every time", again)
    before = EPOCHS * (2 * published.encoding + published.language)
    found = {"train.towers": published.encoding / ours["all"].encoding}
    for tokens, cost in ours.items():
        first = again.language if tokens == "text" else cost.language
        after = cost.encoding + (EPOCHS - 1) * cost.language + first
        found[f"train.job.{tokens}"] = before / after
        found[f"train.language.{tokens}"] = published.language / cost.language
    found["train.language.text.prefix_recomputed"] = published.language / again.language
    found["train.memory.text"] = ours["text"].kept / ours["all"].kept
    return found


def say(name: str, cost: Cost) -> None:
    """One line of seconds and memory per sample."""
    print(
        f"  {name:<40} encoding {cost.encoding:7.2f} s, LLM step {cost.language:6.2f} s, "
        f"{cost.kept / 2**20:7.1f} MiB kept for backward, per sample",
        flush=True,
    )


def published_cost(paths: BackbonePaths, samples: Sequence[Sample], store: Path, steps: int) -> Cost:
    """The published recipe, batch 2; the first step is not timed."""
    with opened(paths, store, ExpertConfig(kind="mlp"), ours=False) as room:
        room.model.enable_gradient_checkpointing()
        room.model.train()
        recipe = PublishedRecipe(room.model, room.inputs, room.store)
        optimizer = torch.optim.AdamW(room.bank.train_only(0), lr=4e-5)
        batch = samples[:BATCH]
        encoding = seconds(lambda: recipe.encode(batch), repeats=steps) / BATCH
        prompts = recipe.prompts(batch, with_answers=True)
        language = seconds(lambda: recipe.language_step(optimizer, prompts), steps, warm_up=1) / BATCH
    return Cost(encoding, language)


def our_cost(
    paths: BackbonePaths, samples: Sequence[Sample], store: Path, tokens: str, steps: int, kept: bool
) -> Cost:
    """Ours: bf16 (see `working_dtype`), LoRA of rank 16 on every even layer, loss at the answer, clips
    encoded once; the prefix that the experts leave alone kept or computed in every step."""
    with opened(paths, store, ExpertConfig(tokens=tokens), ours=True) as room:
        encoding = seconds(lambda: room.inputs.encode(samples)) / len(samples)
        if not kept:
            room.model.prefixes = PrefixCache(room.model._prefix, PrefixBounds(memory=0))
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

        language = seconds(step, repeats=steps, warm_up=1) / len(samples)
        held = kept_for_backward(loss, frozen) // len(samples)
    return Cost(encoding, language, held)


def main(arguments: argparse.Namespace) -> None:
    """Print the ratios."""
    for name, value in run(arguments.quick).items():
        print(f"{name:<45} {value:8.2f}")


if __name__ == "__main__":
    sys.exit(main_command(parser(__doc__), main))
