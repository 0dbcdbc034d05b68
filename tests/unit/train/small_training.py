"""A training of seconds: a random LLM of two layers, prompts of random ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from transformers import LlamaConfig, LlamaForCausalLM

from model.language_model.anchor_lm import AnchorLM
from model.language_model.splice import PromptBatch
from model.moe.experts import ExpertBank, ExpertConfig
from train.checkpoints import CheckpointFolder
from train.config import TrainConfig
from train.expert_training import ExpertTraining, Job
from train.recipe import Extra
from train.reporting import Reporting

CONFIG = TrainConfig(
    epochs=2,
    per_device_batch=2,
    accumulation=2,
    learning_rate=1e-2,
    expert=ExpertConfig(rank=2, layers="all"),
)


class StubInputs:
    """Prompts of random ids; the answer is the last two."""

    def _ids(self, sample: Any) -> torch.Tensor:
        return torch.arange(sample.length) * (sample.index + 3) % 40

    def prompt_length(self, sample: Any, *, without_media: bool = False) -> int:
        return int(sample.length)

    def answer_length(self, sample: Any) -> int:
        return 2

    def batch(
        self, samples: Sequence[Any], *, with_answers: bool, without_media: bool = False
    ) -> PromptBatch:
        ids = [self._ids(sample) for sample in samples]
        labels = [torch.cat([torch.full((len(row) - 2,), -100), row[-2:]]) for row in ids]
        return PromptBatch(ids, [[] for _ in ids], labels)


def small_model(config: TrainConfig = CONFIG, bank: type[ExpertBank] = ExpertBank) -> AnchorLM:
    """A random two-layer LLM with an empty bank."""
    torch.manual_seed(0)
    llm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    ).requires_grad_(False)
    return AnchorLM(llm, bank(llm, config.expert))


def training(
    folder: Path,
    config: TrainConfig = CONFIG,
    save_every: int = 1,
    count: int = 7,
    *,
    model: AnchorLM | None = None,
    task_id: int = 0,
    accelerator: Accelerator | None = None,
    extra: Callable[[ExpertBank], Extra] = lambda bank: Extra(),
) -> tuple[ExpertTraining, ExpertBank]:
    """A training from its start, or from its checkpoint in `folder`, and the bank of its expert."""
    model = model or small_model(config)
    bank = model.bank
    assert bank is not None
    bank.add(task_id, generator=torch.Generator().manual_seed(1 + task_id))
    samples = [
        SimpleNamespace(index=i, id=f"s{i}", source=Path("f.json"), length=6 + i % 3) for i in range(count)
    ]
    checkpoint = CheckpointFolder(folder, {"config": config.identity()})
    made = ExpertTraining(
        model,
        StubInputs(),  # type: ignore[arg-type]
        Job(task_id, samples, extra=extra(bank)),  # type: ignore[arg-type]
        config,
        accelerator or Accelerator(cpu=True),
        checkpoint,
        Reporting(folder=folder, save_every=save_every, progress=False),
    )
    return made, bank
