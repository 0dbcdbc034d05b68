"""Loss, logits, greedy answers and text features of the steered LM."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from model.language_model.anchor_lm import AnchorLM
from model.language_model.splice import AUDIO_ID, IGNORE, VIDEO_ID, PromptBatch, splice
from model.moe.expert_layers import record_inputs
from model.moe.experts import NO_EXPERT

EXPERTS = [3, NO_EXPERT, 7, 3]
EOS = 2
VOCAB, WIDTH = 320, 16  # of the LM in conftest.py
MakeLM = Callable[..., AnchorLM]


def prompts(with_labels: bool = False) -> PromptBatch:
    """Four prompts of different length, with two, one and no media."""
    generator = torch.Generator().manual_seed(5)
    rows, media, labels = [], [], []
    for tags, length in (([VIDEO_ID, AUDIO_ID], 9), ([AUDIO_ID], 4), ([], 12), ([VIDEO_ID], 6)):
        row = torch.randint(3, VOCAB, (length,), generator=generator)
        row[1 : 1 + len(tags)] = torch.tensor(tags, dtype=torch.long)
        rows.append(row)
        media.append([torch.randn(2 + i, WIDTH, generator=generator) for i in range(len(tags))])
        label = torch.full((length,), IGNORE)
        label[-2:] = row[-2:]
        labels.append(label)
    return PromptBatch(rows, media, labels if with_labels else None)


def single(batch: PromptBatch, row: int) -> PromptBatch:
    labels = None if batch.labels is None else [batch.labels[row]]
    return PromptBatch([batch.input_ids[row]], [batch.media[row]], labels)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_batched_logits_equal_single_ones(make_lm: MakeLM, attention: str) -> None:
    lm, batch = make_lm(attention), prompts()
    together = lm.logits(batch, EXPERTS)
    for row, expert in enumerate(EXPERTS):
        (alone,) = lm.logits(single(batch, row), [expert])
        assert together[row].shape == (batch.lengths[row], VOCAB)
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=1e-5)
        (bare,) = lm.logits(single(batch, row), [NO_EXPERT])
        assert torch.allclose(alone, bare, atol=1e-3) == (expert == NO_EXPERT)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_left_padding_equals_right_padding(make_lm: MakeLM, attention: str) -> None:
    """The prefill of generation sees the same hidden states as the loss does."""
    lm, batch = make_lm(attention), prompts()
    assert lm.bank is not None
    left = splice(batch, lm.llm.get_input_embeddings(), "left")
    with lm.bank.use(EXPERTS):
        logits = lm.llm(
            inputs_embeds=left.embeds, attention_mask=left.mask, position_ids=left.positions
        ).logits
    for row, right in enumerate(lm.logits(batch, EXPERTS)):
        torch.testing.assert_close(logits[row][left.mask[row]], right, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_answers_do_not_depend_on_their_batch(make_lm: MakeLM, attention: str) -> None:
    lm, batch = make_lm(attention), prompts()
    together = lm.generate(batch, EXPERTS, 10, EOS)
    assert together == [lm.generate(single(batch, r), [e], 10, EOS)[0] for r, e in enumerate(EXPERTS)]
    assert len({tuple(answer) for answer in together}) == len(EXPERTS)


@torch.no_grad()
def test_answers_are_the_argmax_of_the_whole_prompt(lm: AnchorLM) -> None:
    """The cache and its positions give what recomputing everything at each step gives."""
    batch = prompts()
    for row, expert in enumerate(EXPERTS):
        ids = batch.input_ids[row]
        expected: list[int] = []
        for _ in range(6):
            grown = torch.cat([ids, torch.tensor(expected, dtype=torch.long)])
            (logits,) = lm.logits(PromptBatch([grown], [batch.media[row]]), [expert])
            expected.append(int(logits[-1].argmax()))
        assert EOS not in expected
        assert lm.generate(single(batch, row), [expert], 6, EOS) == [expected]


def test_answers_end_at_eos_and_generation_when_all_have_ended(
    lm: AnchorLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = prompts()
    free = lm.generate(batch, EXPERTS, 10, eos_id=VOCAB - 1)
    eos = free[0][3]
    calls = 0
    forward = lm.llm.base_model.forward

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        return forward(*args, **kwargs)

    monkeypatch.setattr(lm.llm.base_model, "forward", counted)
    ended = lm.generate(batch, EXPERTS, 10, eos)
    assert ended == [answer[: answer.index(eos)] if eos in answer else answer for answer in free]
    assert len(ended[0]) <= 3
    assert calls == 10, "rows without eos go on to the limit"
    calls = 0
    lm.generate(single(batch, 0), EXPERTS[:1], 10, eos)
    assert calls == len(ended[0]) + 1
    with pytest.raises(ValueError, match="max_new_tokens"):
        lm.generate(batch, EXPERTS, 0, eos)


@torch.no_grad()
def test_loss_is_the_cross_entropy_of_the_full_logits(lm: AnchorLM) -> None:
    batch = prompts(with_labels=True)
    loss = lm(batch, EXPERTS)
    spliced = splice(batch, lm.llm.get_input_embeddings(), "right")
    assert spliced.labels is not None
    total = 0.0
    for row, logits in enumerate(lm.logits(batch, EXPERTS)):
        labels = spliced.labels[row, : batch.lengths[row]]
        expected = F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE, reduction="sum")
        torch.testing.assert_close(loss.per_sample[row], expected, atol=1e-5, rtol=1e-5)
        total += expected.item()
    assert loss.count == 8
    assert loss.sum.item() == pytest.approx(total, rel=1e-5)
    assert loss.mean.item() == pytest.approx(total / 8, rel=1e-5)


def test_smoothed_loss_is_the_mixture_with_the_mean_over_the_vocabulary(lm: AnchorLM) -> None:
    batch = prompts(with_labels=True)
    plain, smoothed = lm(batch, EXPERTS), lm(batch, EXPERTS, 0.3)
    even = lm(batch, EXPERTS, 1.0)
    torch.testing.assert_close(smoothed.sum, 0.7 * plain.sum + 0.3 * even.sum)
    assert even.sum > plain.count * torch.tensor(float(VOCAB)).log()


def test_gradients_reach_the_trained_expert_only(make_lm: MakeLM) -> None:
    lm = make_lm()
    assert lm.bank is not None
    trained = lm.bank.train_only(7)
    lm(prompts(with_labels=True), [7] * 4).mean.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained)
    chosen = {id(p) for p in trained}
    others = [p for p in lm.parameters() if id(p) not in chosen]
    assert len(others) > 10
    assert all(p.grad is None for p in others)


def test_checkpointed_gradients_are_equal(make_lm: MakeLM) -> None:
    gradients = []
    for checkpointing in (False, True):
        lm = make_lm()
        assert lm.bank is not None
        if checkpointing:
            lm.enable_gradient_checkpointing()
        trained = lm.bank.train_only(3)
        lm(prompts(with_labels=True), [3, 3, NO_EXPERT, 3]).mean.backward()
        gradients.append([p.grad for p in trained])
        assert any(m.training for m in lm.llm.modules()) == checkpointing
    for plain, checkpointed in zip(*gradients, strict=True):
        assert plain is not None
        torch.testing.assert_close(plain, checkpointed)


def test_text_feature_is_the_mean_over_words(lm: AnchorLM) -> None:
    table = lm.llm.get_input_embeddings().weight
    features = lm.text_feature([torch.tensor([5, VIDEO_ID, 9, VOCAB]), torch.tensor([0])])
    torch.testing.assert_close(features, torch.stack([(table[5] + table[9]) / 2, table[0]]))
    assert not features.requires_grad
    with pytest.raises(ValueError, match="text 1"):
        lm.text_feature([torch.tensor([1]), torch.tensor([AUDIO_ID])])


def test_misuse_is_refused(lm: AnchorLM) -> None:
    batch = prompts()
    with pytest.raises(ValueError, match="no labels|has none"):
        lm(batch, EXPERTS)
    nothing = PromptBatch(batch.input_ids, batch.media, [torch.full_like(i, IGNORE) for i in batch.input_ids])
    with pytest.raises(ValueError, match=r"prompts \[0, 1, 2, 3\] have no answer"):
        lm(nothing, EXPERTS)
    with pytest.raises(ValueError, match="4 prompts need as many expert ids, got 1"):
        lm.logits(batch, [3])
    with pytest.raises(ValueError, match="5"):
        lm.logits(batch, [5] * 4)


@torch.no_grad()
def test_without_a_bank_only_the_bare_backbone_runs(make_lm: MakeLM) -> None:
    with_bank, bare = make_lm(), make_lm()
    assert bare.bank is not None
    bare.bank.detach()
    alone = AnchorLM(bare.llm)
    batch = prompts()
    expected = with_bank.logits(batch, [NO_EXPERT] * 4)
    for a, b in zip(alone.logits(batch, [NO_EXPERT] * 4), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"experts \[3\].*without an expert bank"):
        alone.generate(batch, [3] * 4, 2, EOS)


@torch.no_grad()
def test_full_mlp_experts_mix_too(make_lm: MakeLM) -> None:
    lm, batch = make_lm(kind="mlp"), prompts()
    together = lm.logits(batch, EXPERTS)
    for row, expert in enumerate(EXPERTS):
        torch.testing.assert_close(
            together[row], lm.logits(single(batch, row), [expert])[0], atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
@pytest.mark.parametrize("scope", ["all", "text", "answer"])
def test_activation_norms_cover_the_tokens_that_experts_act_on(make_lm: MakeLM, scope: str) -> None:
    lm, batch = make_lm(), prompts()
    assert lm.bank is not None
    lm.bank.config = replace(lm.bank.config, tokens=scope)  # type: ignore[arg-type]
    found = lm.activation_norms(batch)
    assert found.shape == (4, 2) and found.dtype == torch.float64
    for row in range(4):
        alone = single(batch, row)
        torch.testing.assert_close(lm.activation_norms(alone)[0], found[row], atol=1e-5, rtol=1e-5)
        with record_inputs(lm.bank.layers) as kept, lm.bank.use([NO_EXPERT]):
            spliced = splice(alone, lm.llm.get_input_embeddings(), "right")
            lm.llm.base_model(inputs_embeds=spliced.embeds)
        media = int((batch.input_ids[row] < 0).nonzero()[-1]) + 1 if len(batch.media[row]) else 0
        tail = {"all": 0, "text": batch.input_ids[row].numel() - media, "answer": 1}[scope]
        for column, task in enumerate((3, 7)):
            norms = [
                (x[0, -tail:] @ lm.bank.layers[key].factors(task)[0].T).norm(dim=1).mean()
                for key, (x,) in kept.items()
            ]
            assert float(found[row, column]) == pytest.approx(float(torch.stack(norms).mean()), rel=1e-4)


def test_activation_norms_need_experts(lm: AnchorLM) -> None:
    with pytest.raises(ValueError, match="without an expert bank"):
        AnchorLM(lm.llm).activation_norms(prompts())
