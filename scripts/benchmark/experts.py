"""Many experts: opening packs, mixed batches and routing, against PEFT and against our own bare backbone.

    python scripts/benchmark/experts.py [--quick]

The LLM has random weights and the sizes of a 135 M one (30 layers, width 576, 9 heads, 3 of them for keys and
values, MLP 1536); experts have rank 16 on every even layer's MLP. Seconds are those of the process on all its
processors, medians over rounds in which all sides take turns, so that other jobs on the machine hardly count.
`--quick`: prompts of 128 tokens in place of 660, one round of mixed batches, 8 adapters in PEFT in place of
64 (its mixed batches do not depend on how many it holds), a thousand experts of rank 1 in place of 16.

PEFT: https://github.com/huggingface/peft (`load_adapter`, and `generate` with `adapter_names`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from model.language_model import block_attention
from model.language_model.anchor_lm import AnchorLM
from model.language_model.splice import VIDEO_ID, PromptBatch
from model.moe.expert_files import ExpertHeader
from model.moe.expert_pack import PackedExpert, packed_experts
from model.moe.experts import ExpertBank, ExpertConfig
from model.moe.peft_adapters import write_adapter
from scripts.benchmark.many_anchors import routing
from scripts.benchmark.thousand import BASE, make_experts, thousand
from scripts.benchmark.timing import medians, working_dtype

VOCABULARY, WIDTH = 49152, 576
ROWS = 8  # of a mixed batch
HELD = 64  # experts
NO_END = VOCABULARY  # no token ends an answer: all sides produce equally many
CONFIG = ExpertConfig(rank=16, alpha=32.0)


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    prompt: int = 660  # tokens
    answer: int = 16  # tokens
    rounds: int = 5
    mixed_rounds: int = 5  # of mixed batches, which take longest
    adapters: int = HELD  # loaded by PEFT
    rank: int = 16  # of the thousand experts


QUICK = Sizes(prompt=128, answer=8, rounds=3, mixed_rounds=1, adapters=ROWS, rank=1)


def run(quick: bool) -> dict[str, float]:
    """All figures by name; those named `..._speedup` and `..._over_...` are ratios."""
    return {name: value for part in parts(quick) for name, value in part.items()}


@torch.inference_mode()
def parts(quick: bool) -> Iterator[dict[str, float]]:
    """The figures, as they become known."""
    sizes = QUICK if quick else Sizes()
    torch.manual_seed(0)
    llm = mid_llm()
    yield routing(llm, WIDTH, sizes.rounds)
    with tempfile.TemporaryDirectory() as folder:
        config = replace(CONFIG, rank=sizes.rank)
        yield thousand(llm, Path(folder) / "thousand", config, sizes.rounds)
        held = packed_experts(make_experts(llm, Path(folder) / "experts", range(HELD), CONFIG))
        peft, loading = load_in_peft(llm, Path(folder) / "peft", held, sizes)
        yield loading
        ours = AnchorLM(deepcopy(llm))
        ours.bank = ExpertBank(ours.llm, CONFIG, BASE)
        experts = list(held.values())
        ours.bank.add_packed({task: experts[task % HELD] for task in range(1000)}, own_ids=False)
        yield mixed_batches(AnchorLM(llm), ours, peft, sizes)
        yield best_settings(ours, peft, sizes)


def mid_llm() -> LlamaForCausalLM:
    """The mid-size LLM, random weights."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval().to(working_dtype())


def load_in_peft(
    llm: LlamaForCausalLM, folder: Path, held: Mapping[Path, PackedExpert], sizes: Sizes
) -> tuple[object, dict[str, float]]:
    """A PEFT model with the same experts, and how long loading takes on both sides."""
    from peft import PeftModel  # of the benchmark only

    names = []
    bank = ExpertBank(deepcopy(llm), CONFIG, BASE)
    bank.add_packed({task: expert for task, expert in enumerate(held.values()) if task < sizes.adapters})
    for task in bank.task_ids:
        header = ExpertHeader("lora", CONFIG.rank, CONFIG.alpha, task, BASE)
        write_adapter(folder / f"task_{task}", header, bank.state(task), "")
        names.append(f"task_{task}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = PeftModel.from_pretrained(deepcopy(llm), folder / names[0], adapter_name=names[0])
        seconds = []
        for name in names[1:]:
            start = process_time()
            peft.load_adapter(folder / name, name)
            seconds.append(process_time() - start)
    paths = list(held)
    opened = medians({"ours": lambda: packed_experts(paths)}, sizes.rounds)["ours"] / len(paths)

    def use() -> None:
        for expert in packed_experts(paths).values():
            expert.get(next(iter(expert.layout.places)))

    used = medians({"ours": use}, sizes.rounds)["ours"] / len(paths)
    return peft.eval(), {
        "load_64_speedup": median(seconds) / opened,
        "load_64_and_check_values_speedup": median(seconds) / used,
    }


def mixed_batches(bare: AnchorLM, ours: AnchorLM, peft: object, sizes: Sizes) -> dict[str, float]:
    """Greedy answers of eight rows with eight experts (four where only so many are held)."""
    ids = [torch.randint(VOCABULARY, (sizes.prompt,)) for _ in range(ROWS)]
    batch = PromptBatch(ids, [[] for _ in ids])
    embeds = bare.llm.get_input_embeddings()(torch.stack(ids))

    def answer(lm: AnchorLM, tasks: Sequence[int], prompts: PromptBatch = batch) -> Callable[[], object]:
        return lambda: lm.generate(prompts, tasks, sizes.answer, NO_END)

    sides = {
        "bare": answer(bare, [-1] * ROWS),
        **{f"of_{n}": answer(ours, [row * n // ROWS for row in range(ROWS)]) for n in (4, 64, 1000)},
        "peft": lambda: peft_answers(peft, embeds, sizes),
    }
    seconds = medians(sides, sizes.mixed_rounds)
    return {
        "mixed_batch_speedup": seconds["peft"] / seconds["of_64"],
        **{f"mixed_batch_{n}_experts_over_bare": seconds[f"of_{n}"] / seconds["bare"] for n in (4, 64, 1000)},
    }


def peft_answers(peft: object, embeds: Tensor, sizes: Sizes, attention: str = "sdpa") -> None:
    """PEFT's answers to the same prompts, a different adapter for every row."""
    peft.get_base_model().set_attn_implementation(attention)  # type: ignore[attr-defined]
    peft.generate(  # type: ignore[attr-defined]
        inputs_embeds=embeds,
        attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
        adapter_names=[f"task_{row}" for row in range(ROWS)],
        max_new_tokens=sizes.answer,
        min_new_tokens=sizes.answer,
        do_sample=False,
        pad_token_id=0,
    )


def text_answers(ours: AnchorLM, attention: str, prompts: PromptBatch, sizes: Sizes) -> None:
    """Our answers by this attention function, no prefix being known yet."""
    ours.llm.set_attn_implementation(attention)
    AnchorLM(ours.llm, ours.bank).generate(prompts, list(range(ROWS)), sizes.answer, NO_END)


def best_settings(ours: AnchorLM, peft: object, sizes: Sizes) -> dict[str, float]:
    """The same with what each side does best: experts on the text only, each clip's prefix computed once for
    its questions; both with the faster of their attention functions. Eight questions, of one clip each and of
    four to a clip."""
    assert ours.bank is not None
    block_attention.register()
    usual = ours.llm.config._attn_implementation
    asked = 24  # tokens of a question
    clips = [torch.randn(sizes.prompt - asked, WIDTH, dtype=working_dtype()) for _ in range(ROWS)]
    questions = [torch.randint(VOCABULARY, (asked,)) for _ in range(ROWS)]
    embedding = ours.llm.get_input_embeddings()
    figures = {}
    for name, per_clip in (("clips_of_one_question", 1), ("clips_of_four_questions", 4)):
        media = [clips[row // per_clip] for row in range(ROWS)]
        batch = PromptBatch(
            [torch.cat([torch.tensor([VIDEO_ID]), q]) for q in questions], [[m] for m in media]
        )
        embeds = torch.stack([torch.cat([m, embedding(q)]) for m, q in zip(media, questions, strict=True)])

        sides = {
            **{
                f"ours {k}": partial(text_answers, ours, k, batch, sizes)
                for k in ("sdpa", block_attention.NAME)
            },
            **{f"peft {k}": partial(peft_answers, peft, embeds, sizes, k) for k in ("sdpa", "eager")},
        }
        ours.bank.config = replace(CONFIG, tokens="text")
        seconds = medians(sides, sizes.mixed_rounds, warm_up=0)  # both sides have answered before
        ours.bank.config = CONFIG
        best = [min(s for n, s in seconds.items() if n.startswith(whose)) for whose in ("peft", "ours")]
        figures[f"mixed_batch_best_settings_{name}_speedup"] = best[0] / best[1]
    ours.llm.set_attn_implementation(usual)
    return figures


def main() -> None:
    """Print every figure under its name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes, minutes in place of an hour")
    for part in parts(parser.parse_args().quick):
        for name, value in part.items():
            print(f"{name:60} {value:10.4g}", flush=True)


if __name__ == "__main__":
    main()
