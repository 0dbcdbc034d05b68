"""Greedy answers in mixed-expert batches: each (sample, expert) once, questions of different tasks side by
side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from data.inputs import Inputs
from data.parallel import in_shares
from data.samples import Sample
from evaluation.answer_book import AnswerBook, answer_key
from evaluation.ranks import Ranks
from model.language_model.anchor_lm import AnchorLM
from model.language_model.prompt_pool import PromptPool
from model.language_model.splice import PromptBatch
from model.moe.experts import NO_EXPERT


@dataclass(frozen=True)
class Request:
    """One question for one expert."""

    sample: Sample
    expert: int  # id in the bank or of a prompt pool, NO_EXPERT for the bare backbone
    without_media: bool = False  # ask blind


@dataclass(frozen=True)
class Generation:
    """How answers are generated; greedy always."""

    max_new_tokens: int = 64
    batch_size: int = 16  # rows per batch; changes nothing but speed and rounding
    progress: bool = True
    jobs: int = 0  # forked processes of one thread that share the batches; changes nothing but speed


class Answerer:
    """Answers requests with one model and keeps the answers in a book."""

    def __init__(
        self,
        model: AnchorLM,
        inputs: Inputs,
        book: AnswerBook,
        generation: Generation,
        expert_digests: dict[int, str],
        pools: Mapping[int, PromptPool] | None = None,
    ) -> None:
        """`expert_digests`: id -> hash of the expert's file, part of the key of an answer; `pools`: prompt
        pools by id, which answer in place of experts."""
        self.model, self.inputs, self.book, self.generation = model, inputs, book, generation
        self._digests, self._pools = expert_digests, pools or {}

    def key(self, request: Request) -> str:
        """The key of the answer in the book."""
        expert = self._digests.get(request.expert, "none")
        pool = self._pools.get(request.expert)
        if pool is not None:  # its choice may hang on media that the question does not name
            expert += str(self._choice(pool, request).tolist())
        return answer_key(
            sample=self.inputs.sample_key(request.sample, without_media=request.without_media),
            expert=expert,
            base=self.inputs.base_identity,
            max_new_tokens=self.generation.max_new_tokens,
            inputs=self.inputs.identity(),
        )

    def activation_norms(
        self, samples: Sequence[Sample], experts: Sequence[int], without_media: bool = False
    ) -> Tensor:
        """What these E experts of the bank make of each sample's prompt, for `autonomy`. (N, E)

        Raises:
            ValueError: the experts are no LoRA experts, or do not act on the same tokens.
        """
        size = self.generation.batch_size
        batches = [
            self.inputs.batch(samples[start : start + size], with_answers=False, without_media=without_media)
            for start in range(0, len(samples), size)
        ]
        return torch.cat([self.model.activation_norms(batch, experts) for batch in batches])

    def answer(self, requests: Sequence[Request], title: str = "answering") -> list[str]:
        """Answer texts in the order of the requests; what the book holds is not computed again.

        Equal requests are answered once. The batches follow from the requests and the settled answers; of
        several processes each takes every so-many-th. A batch is written to the book before the next starts;
        one that a kill has torn is computed as a whole again, so that its answers are the same.
        """
        keys = [self.key(request) for request in requests]
        asked = dict(zip(keys, requests, strict=True))
        plan = self._plan({key: request for key, request in asked.items() if not self.book.is_settled(key)})
        if self.generation.jobs > 1 and len(plan) > 1:

            def answer_share(share: int, shares: int) -> None:
                self.book.ranks = Ranks(share, shares)  # in the forked process
                self._answer_share(plan, asked, title)

            in_shares(answer_share, self.generation.jobs)
        else:
            self._answer_share(plan, asked, title)
        self.book.settle([key for batch in plan for key in batch])
        texts = [self.book.get(key) for key in keys]
        assert all(text is not None for text in texts)
        return [text or "" for text in texts]

    def _answer_share(self, plan: list[list[str]], asked: dict[str, Request], title: str) -> None:
        """Answer this process's batches of the plan, every so-many-th, into the book."""
        ranks = self.book.ranks
        hidden = not (self.generation.progress and ranks.first and plan)
        with tqdm(total=len(plan), desc=title, unit="batch", disable=hidden) as bar:
            for number, batch in enumerate(plan):
                if number % ranks.world == ranks.rank and any(self.book.get(key) is None for key in batch):
                    for key, text in zip(batch, self._generate([asked[key] for key in batch]), strict=True):
                        self.book.add(key, text)
                bar.update()

    def _plan(self, missing: dict[str, Request]) -> list[list[str]]:
        """Batches of keys: prompts of like length together, the longest first; those of one question side by
        side, so that what comes before the experts is computed once."""

        def place(key: str) -> tuple[int, str, int]:
            request = missing[key]
            blind = request.without_media
            length = self.inputs.prompt_length(request.sample, without_media=blind)
            return length, self.inputs.sample_key(request.sample, without_media=blind), request.expert

        order = sorted(missing, key=place, reverse=True)
        size = self.generation.batch_size
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _generate(self, requests: Sequence[Request]) -> list[str]:
        tokenizer = self.inputs.tokenizer
        prompts = self.inputs.mixed_batch([(request.sample, request.without_media) for request in requests])
        if self._pools:
            rows = [self._prompted(prompts.rows([row]), asked) for row, asked in enumerate(requests)]
            ids, media = [row.input_ids[0] for row in rows], [row.media[0] for row in rows]
            prompts = PromptBatch(ids, media, early=prompts.early)
        tokens = self.model.generate(
            prompts,
            [NO_EXPERT if request.expert in self._pools else request.expert for request in requests],
            max_new_tokens=self.generation.max_new_tokens,
            eos_id=tokenizer.eos_token_id,
        )
        return [tokenizer.decode(ids).strip() for ids in tokens]

    def _prompted(self, row: PromptBatch, request: Request) -> PromptBatch:
        """A batch of one row, with the prompts that its request's pool chooses."""
        pool = self._pools.get(request.expert)
        return row if pool is None else pool.prompted(row, self._choice(pool, request)[None])

    def _choice(self, pool: PromptPool, request: Request) -> Tensor:
        """Numbers of the prompts that a pool chooses for a request. (N,)"""
        features = self.inputs.routing([request.sample], without_media=request.without_media)
        return pool.choose(pool.query(features))[0]
