"""Prompt pools answer in place of experts, each question with the prompts that it chooses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data.files import sha256_file
from evaluation.answer_book import AnswerBook
from evaluation.answering import Answerer, Generation, Request
from evaluation.expert_loading import POOLS, loaded
from model.language_model.prompt_pool import PoolConfig, PromptPool
from model.language_model.splice import PromptBatch
from model.moe.experts import NO_EXPERT
from model.moe.routing_records import RoutingFeatures
from tests.unit.train.small_training import small_model

SAMPLES: list[Any] = [SimpleNamespace(id=i, question=i % 3) for i in range(6)]


class Inputs:
    """Three questions, each twice with other features."""

    base_identity = "base-1"
    tokenizer = SimpleNamespace(eos_token_id=39, decode=lambda ids: " ".join(map(str, ids)))

    def identity(self) -> dict[str, Any]:
        return {}

    def sample_key(self, sample: Any, *, without_media: bool = False) -> str:
        return str(sample.question)

    def prompt_length(self, sample: Any, *, without_media: bool = False) -> int:
        return 5 + int(sample.question)

    def mixed_batch(self, asked: Sequence[tuple[Any, bool]]) -> PromptBatch:
        ids = [torch.arange(5 + sample.question) % 30 + 2 for sample, _ in asked]
        return PromptBatch(ids, [[] for _ in ids])

    def routing(self, samples: Sequence[Any], *, without_media: bool = False) -> RoutingFeatures:
        rows = [torch.randn(4, generator=torch.Generator().manual_seed(s.id)) for s in samples]
        return RoutingFeatures({"text": torch.stack(rows)}, {"text": torch.ones(len(rows), dtype=torch.bool)})


@pytest.fixture
def files(tmp_path: Path) -> dict[int, Path]:
    """Two pools with large prompts."""
    made = {}
    for number in range(2):
        pool = PromptPool(PoolConfig(size=8, length=2, top=2), {"text": 4}, 16)
        pool.start(torch.nn.Embedding(40, 16), torch.Generator().manual_seed(number))
        pool.prompts.data.mul_(3)
        made[number] = tmp_path / f"expert_task_{number}.pt"
        pool.save(made[number], number, "base-1")
    return made


def test_every_question_is_answered_with_the_prompts_it_chooses(
    files: dict[int, Path], tmp_path: Path
) -> None:
    model, inputs = small_model(), Inputs()
    assert model.bank is not None
    model.bank.detach()
    backbone: Any = SimpleNamespace(llm=model.llm, identity="base-1", loading=SimpleNamespace(prefixes=None))
    requests = [Request(sample, pool) for sample in SAMPLES for pool in (0, 1, NO_EXPERT)]
    with loaded(backbone, POOLS, files) as found:
        assert found.digests == {number: sha256_file(path) for number, path in files.items()}
        book, settings = AnswerBook(tmp_path / "answers.jsonl"), Generation(4, 5, progress=False)
        answerer = Answerer(found.model, inputs, book, settings, found.digests, found.pools)  # type: ignore[arg-type]
        answers = answerer.answer(requests)
        assert len(set(answers)) > 3
        for request, answer in zip(requests, answers, strict=True):
            batch = inputs.mixed_batch([(request.sample, False)])
            if request.expert in found.pools:
                pool = found.pools[request.expert]
                batch = pool.prompted(batch, pool.choose(pool.query(inputs.routing([request.sample]))))
            [expected] = found.model.generate(batch, [NO_EXPERT], 4, 39)
            assert answer == inputs.tokenizer.decode(expected)
        keys = {(r.expert, r.sample.question): set() for r in requests}
        for request in requests:
            keys[request.expert, request.sample.question].add(answerer.key(request))
    assert all(len(found) == 1 for (expert, _), found in keys.items() if expert == NO_EXPERT)
    assert any(len(found) == 2 for (expert, _), found in keys.items() if expert != NO_EXPERT), (
        "what a question chooses is part of its key"
    )


def test_a_pool_of_another_backbone_is_refused(files: dict[int, Path]) -> None:
    backbone: Any = SimpleNamespace(llm=None, identity="base-2", loading=None)
    with pytest.raises(ValueError, match="made for base base-1"), loaded(backbone, POOLS, files):
        pass
