"""Command: make `checkpoints/tiny` from nothing (`bash scripts/make_tiny_backbone.sh`)."""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from transformers import LlamaTokenizer

from data.prompts import PromptTokenizer
from model.language_model.backbone import AUDIO, BASE, VISION, BackbonePaths, load_backbone
from scripts.make_tiny_backbone import readme
from scripts.make_tiny_backbone.bank import BankSizes, make_bank, open_bank
from scripts.make_tiny_backbone.export import export
from scripts.make_tiny_backbone.language import LanguagePlan, LanguageStage
from scripts.make_tiny_backbone.learner import Learner, new_llm, new_projector
from scripts.make_tiny_backbone.probes import ProbeSizes, probe, randomise_towers, render_probe_clips
from scripts.make_tiny_backbone.sizes import TinySizes
from scripts.make_tiny_backbone.tokenizer import train_tokenizer
from scripts.make_tiny_backbone.towers import (
    TowerPlan,
    new_aligner,
    new_beats,
    new_vision,
    train_audio,
    train_vision,
)


@dataclass(frozen=True)
class Plan:
    """All that decides the result."""

    sizes: TinySizes = TinySizes()
    bank: BankSizes = BankSizes()
    vision: TowerPlan = TowerPlan(steps=1300, batch=96)
    audio: TowerPlan = TowerPlan(steps=850, batch=64)
    language: LanguagePlan = LanguagePlan(steps=1100)
    more: LanguagePlan = LanguagePlan(steps=600, rate=1e-3, many_wordings=True, episode_share=0.4)
    probes: ProbeSizes = ProbeSizes()
    seed: int = 0


def smoke_plan() -> Plan:
    """Every stage with a handful of clips."""
    return Plan(
        bank=BankSizes(kinds=12, views=1, recordings=1, places=6, place_views=1),
        vision=TowerPlan(steps=2, batch=6),
        audio=TowerPlan(steps=2, batch=6),
        language=LanguagePlan(steps=2, batch=2, questions=3, kinds=8, places=4),
        more=LanguagePlan(steps=2, batch=2, questions=3, kinds=8, places=4, towers=0.3, many_wordings=True),
        probes=ProbeSizes(classes=3, train=3, test=2),
    )


def train_tower(name: str, plan: Plan, work: Path) -> None:
    """Train one tower and keep its weights in `work` (run as a process of its own, one per core)."""
    torch.set_num_threads(1)
    start = time.time()
    bank = open_bank(work / "bank")
    if name == "vision":
        vision, heads = train_vision(bank, plan.sizes, plan.vision, plan.seed)
        proxies = {"looks": heads.kind.proxies, "places": heads.place.proxies}
        states = {"vision": vision.state_dict(), "proxies": proxies}
    else:
        beats, aligner, heads = train_audio(bank, plan.sizes, plan.audio, plan.seed)
        proxies = {"voices": heads.tokens.proxies}
        states = {"beats": beats.state_dict(), "aligner": aligner.state_dict(), "proxies": proxies}
    torch.save(
        {**states, "made_from": tower_key(name, plan), "minutes": (time.time() - start) / 60},
        work / f"{name}.pt",
    )


def tower_key(name: str, plan: Plan) -> str:
    """What the weights of a tower depend on."""
    steps = plan.vision if name == "vision" else plan.audio
    return json.dumps([asdict(plan.sizes), asdict(plan.bank), asdict(steps), plan.seed])


def train_towers(plan: Plan, work: Path, arguments: list[str]) -> float:
    """Both towers at once, except what an interrupted run left ready; returns the minutes that they took."""
    command = [sys.executable, "-m", "scripts.make_tiny_backbone.main", *arguments, "--tower"]
    missing = [name for name in ("vision", "audio") if not tower_is_ready(name, plan, work)]
    jobs = [subprocess.Popen([*command, name]) for name in missing]
    codes = [job.wait() for job in jobs]
    if any(codes):
        raise RuntimeError("training of a tower failed, see above")
    return max(torch.load(work / f"{name}.pt", weights_only=True)["minutes"] for name in ("vision", "audio"))


def tower_is_ready(name: str, plan: Plan, work: Path) -> bool:
    """Whether its file was made from this plan."""
    path = work / f"{name}.pt"
    return path.is_file() and torch.load(path, weights_only=True).get("made_from") == tower_key(name, plan)


def load_learner(plan: Plan, work: Path) -> Learner:
    """Trained towers and aligner, fresh projector and language model."""
    torch.manual_seed(plan.seed)
    sizes = plan.sizes
    vision, beats, aligner = new_vision(sizes), new_beats(sizes), new_aligner(sizes)
    audio = torch.load(work / "audio.pt", weights_only=True)
    video = torch.load(work / "vision.pt", weights_only=True)
    vision.load_state_dict(video["vision"])
    beats.load_state_dict(audio["beats"])
    aligner.load_state_dict(audio["aligner"])
    proxies = (audio["proxies"]["voices"], video["proxies"]["looks"], video["proxies"]["places"])
    return Learner(vision, beats, aligner, new_projector(sizes), new_llm(sizes), proxies)


def train_language(plan: Plan, work: Path) -> Learner:
    """Second stage, first with few wordings and then with many."""
    tokenizer = PromptTokenizer(LlamaTokenizer.from_pretrained(work / "tokenizer"))
    base = LlamaTokenizer.from_pretrained(work / "tokenizer")
    pieces = [str(base.convert_ids_to_tokens(i)) for i in range(plan.sizes.vocabulary)]
    learner = load_learner(plan, work)
    bank = open_bank(work / "bank")
    first = LanguageStage(bank, learner, tokenizer, pieces, plan.language, plan.seed)
    first.run()
    LanguageStage(bank, learner, tokenizer, pieces, plan.more, plan.seed + 1, first.spelled).run()
    return learner


def run_probes(plan: Plan, folder: Path) -> dict[str, tuple[float, float]]:
    """Probe accuracies of the exported towers and of random ones."""
    encoder = load_backbone(BackbonePaths(folder / BASE, folder / VISION, folder / AUDIO)).encoder
    clips = render_probe_clips(plan.probes)
    trained = probe(encoder, clips)
    randomise_towers(encoder, plan.seed)
    random = probe(encoder, clips)
    return {name: (trained[name], random[name]) for name in trained}


def main() -> None:
    """Run all stages, or one tower."""
    parser = argparse.ArgumentParser(prog="make_tiny_backbone.sh", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("checkpoints/tiny"), help="folder to write")
    parser.add_argument(
        "--work", type=Path, default=Path("output/tiny_world"), help="folder for what is rendered"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="all stages with a handful of clips")
    parser.add_argument("--tower", choices=("vision", "audio"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    plan = replace(smoke_plan() if args.smoke else Plan(), seed=args.seed)
    if args.tower:
        train_tower(args.tower, plan, args.work)
        return
    torch.set_num_threads(2)
    minutes = {}
    args.work.mkdir(parents=True, exist_ok=True)
    train_tokenizer(args.work / "tokenizer", plan.sizes.vocabulary)
    minutes["rendering"] = make_bank(args.work / "bank", plan.bank)
    options = [*(["--smoke"] if args.smoke else []), "--work", str(args.work), "--seed", str(args.seed)]
    minutes["towers"] = train_towers(plan, args.work, options)
    start = time.time()
    learner = train_language(plan, args.work)
    minutes["language model"] = (time.time() - start) / 60
    export(learner, plan.sizes, args.work / "tokenizer", args.output)
    probes = run_probes(plan, args.output)
    (args.output / "README.md").write_text(readme.render(asdict(plan), probes, minutes))
    print(
        json.dumps({name: {"trained": t, "random weights": r} for name, (t, r) in probes.items()}, indent=2)
    )
    size = sum(f.stat().st_size for f in args.output.rglob("*") if f.is_file())
    print(f"{args.output}: {size / 1e6:.2f} MB, made in {sum(minutes.values()):.1f} min")


if __name__ == "__main__":
    main()
