"""Prompts with media, spliced; logits and greedy answers of the backbone and of every expert."""

from typing import Any

import torch
from torch import Tensor

from data.prompts import PromptTokenizer
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import Backbone
from model.language_model.splice import PromptBatch, splice
from tests.parity.recorded import LOGITS, Notes, RecordedSet

NEAR_TIE = 0.005  # margin under which greedy decoding may go another way


def test_prompt_ids(case: Any) -> None:
    assert case.expected.compare_exactly("input_ids", case.open_prompt.input_ids)


def test_spliced_embeddings(case: Any, backbone: Backbone) -> None:
    embedding = backbone.llm.get_input_embeddings()
    for side in ("left", "right"):
        assert case.expected.compare("inputs_embeds", splice(case.prompt, embedding, side).embeds[0])


@torch.no_grad()
def test_logits(case: Any, anchor_lm: AnchorLM, expert_names: dict[str, int]) -> None:
    expected = case.expected
    for expert, number in expert_names.items():
        (logits,) = anchor_lm.logits(case.prompt, [number])
        views = {"last4": logits[-4:], "lse": logits.logsumexp(-1), "full": logits}
        assert sum(expected.compare(f"logits_{expert}_{view}", ours, LOGITS) for view, ours in views.items())
        best = logits.topk(2, -1).values
        clear = best[:, 0] - best[:, 1] > 2 * LOGITS.bound
        for key, ours, theirs in expected.views(f"logits_{expert}_argmax", logits.argmax(-1)):
            sure = clear[::8] if key.endswith("_stride8") else clear
            assert torch.equal(ours[sure], theirs[sure].long())


def sure_steps(recorded: Any) -> int:
    """Steps before the first whose two best logits are nearly tied."""
    margins = recorded["margins"]
    return next((step for step, margin in enumerate(margins) if margin < NEAR_TIE), len(margins))


@torch.no_grad()
def test_greedy_answers(
    case: Any,
    recorded: RecordedSet,
    backbone: Backbone,
    anchor_lm: AnchorLM,
    expert_names: dict[str, int],
) -> None:
    entries = recorded.file("generation.json")[case.name]
    assert set(entries) == set(expert_names)
    tokenizer = PromptTokenizer(backbone.tokenizer)
    for expert, number in expert_names.items():
        ids = entries[expert]["ids"]
        assert len(ids) == len(entries[expert]["margins"])
        ours = anchor_lm.generate(case.prompt, [number], len(ids), tokenizer.eos_token_id)[0]
        sure = sure_steps(entries[expert])
        assert ours[:sure] == [i for i in ids[:sure] if i != tokenizer.eos_token_id], expert
        assert tokenizer.decode(ids).strip() == entries[expert]["text"].strip(), expert


@torch.no_grad()
def test_gaps_of_greedy_answers(
    case: Any, recorded: RecordedSet, notes: Notes, anchor_lm: AnchorLM, expert_names: dict[str, int]
) -> None:
    """The gap at every step, with the recorded ids as answer: nothing is left out after a near tie."""
    entries = recorded.file("generation.json")[case.name]
    for expert, number in expert_names.items():
        ids = torch.tensor(entries[expert]["ids"])
        told = torch.cat([case.open_prompt.input_ids, ids[:-1]])
        (logits,) = anchor_lm.logits(PromptBatch([told], [case.media_tokens]), [number])
        best = logits[-len(ids) :].topk(2, -1)
        gaps: Tensor = best.values[:, 0] - best.values[:, 1]
        margins = torch.tensor(entries[expert]["margins"])
        first = torch.tensor(entries[expert]["first_token_margin"])
        notes.close(gaps[0], first, LOGITS, f"{case.name} {expert}")
        notes.close(gaps, margins, LOGITS, f"{case.name} {expert}")
        clear = margins >= NEAR_TIE
        assert torch.equal(best.indices[clear, 0], ids[clear])


@torch.no_grad()
def test_mixed_experts_in_one_batch(
    cases: dict[str, Any], anchor_lm: AnchorLM, expert_names: dict[str, int]
) -> None:
    """All samples with all experts as one padded batch give the recorded logits."""
    pairs = [(case, expert) for case in cases.values() for expert in expert_names]
    batch = PromptBatch(
        [case.open_prompt.input_ids for case, _ in pairs], [case.media_tokens for case, _ in pairs]
    )
    rows = anchor_lm.logits(batch, [expert_names[expert] for _, expert in pairs])
    for (case, expert), logits in zip(pairs, rows, strict=True):
        compared = case.expected.compare(f"logits_{expert}_last4", logits[-4:], LOGITS)
        assert compared + case.expected.compare(f"logits_{expert}_lse", logits.logsumexp(-1), LOGITS)
