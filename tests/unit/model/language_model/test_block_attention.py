"""Attention in blocks against torch's own: values, gradients, padding, kept prefixes, a whole model."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from model.language_model import block_attention as module
from model.language_model.anchor_lm import AnchorLM
from model.language_model.block_attention import Past, block_attention, mask_after_past
from model.language_model.splice import VIDEO_ID, PromptBatch
from model.moe.experts import ExpertBank, ExpertConfig

CAUSAL = nn.Module()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)


def tensors(queries: int, keys: int, rows: int = 2, heads: int = 6, shared: int = 2) -> tuple[Tensor, ...]:
    torch.manual_seed(queries)
    shapes = (rows, heads, queries, 8), (rows, shared, keys, 8), (rows, shared, keys, 8)
    return tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)


def expected(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)


def causal(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)[None, None]


@pytest.mark.parametrize(("queries", "keys"), [(11, 11), (4, 4), (1, 1), (1, 9), (5, 14)])
@pytest.mark.parametrize("padded", [False, True])
def test_values_and_gradients(queries: int, keys: int, padded: bool) -> None:
    q, k, v = tensors(queries, keys)
    mask = causal(queries, keys).repeat(2, 1, 1, 1)
    if padded and keys > queries:
        mask[1, :, :, :3] = False  # a shorter prefix, padded on the left
    given = mask if padded or keys > queries > 1 else None
    got, weights = block_attention(CAUSAL, q, k, v, given, scaling=0.3)
    assert weights is None and got.is_contiguous()
    wanted = expected(q, k, v, mask, 0.3)
    assert_alike(got, wanted, (q, k, v))


def assert_alike(got: Tensor, wanted: Tensor, parts: tuple[Tensor, ...], past: int = 0) -> None:
    """Equal values, and equal gradients of queries and of the keys and values after the past."""
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    direction = torch.randn(wanted.shape, dtype=torch.float64)
    gradients = (torch.autograd.grad((out * direction).sum(), parts) for out in (got, wanted))
    for a, b, start in zip(*gradients, (0, past, past), strict=True):
        torch.testing.assert_close(a[:, :, start:], b[:, :, start:], rtol=1e-10, atol=1e-10)


def test_a_past_beside_the_keys() -> None:
    """As with one tensor of keys; row 1 has a shorter past and a query less."""
    queries, past = 5, 9
    q, k, v = tensors(queries, past + queries)
    known, own = torch.ones(2, past, dtype=torch.bool), torch.ones(2, queries, dtype=torch.bool)
    known[1, :3], own[1, -1] = False, False
    before = [x.detach()[:, :, :past].clone() for x in (k, v)]
    layer = nn.Module()
    layer.layer_idx = 1  # type: ignore[assignment]
    given = Past([torch.empty(0), before[0]], [torch.empty(0), before[1]])
    mask = mask_after_past(known, own, torch.float64)
    got, _ = block_attention(layer, q, k[:, :, past:], v[:, :, past:], mask, scaling=0.3, past=given)
    seen = causal(queries, past + queries) & torch.cat([known, own], 1)[:, None, None]
    wanted = expected(q, k, v, seen, 0.3)
    assert_alike(got, wanted, (q, k, v), past)


@pytest.mark.parametrize("learning", ["q", "k", "v"])
def test_only_the_gradient_that_is_asked_for(learning: str) -> None:
    parts = dict(zip("qkv", tensors(6, 6), strict=True))
    for name, part in parts.items():
        part.requires_grad_(name == learning)
    block_attention(CAUSAL, *parts.values(), None)[0].sum().backward()
    assert [part.grad is not None for part in parts.values()] == [name == learning for name in parts]


def test_a_query_that_sees_nothing_is_finite() -> None:
    q, k, v = tensors(5, 5)
    mask = causal(5, 5).repeat(2, 1, 1, 1)
    mask[0, :, 0] = False
    got, _ = block_attention(CAUSAL, q, k, v, mask)
    got.sum().backward()
    assert got.isfinite().all() and q.grad is not None and q.grad.isfinite().all()


def test_what_it_cannot_do_is_refused() -> None:
    q, k, v = tensors(3, 3)
    with pytest.raises(ValueError, match="dropout 0.1"):
        block_attention(CAUSAL, q, k, v, None, dropout=0.1)
    with pytest.raises(ValueError, match="mask of torch.float32"):
        block_attention(CAUSAL, q, k, v, torch.zeros(2, 1, 3, 3))
    with pytest.raises(ValueError, match="is causal"):
        block_attention(SimpleNamespace(is_causal=False), q, k, v, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no softcap"):
        block_attention(CAUSAL, q, k, v, None, softcap=50.0)


def model(attention: str, tokens: str) -> AnchorLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=60,
        initializer_range=0.2,
    )
    llm = LlamaForCausalLM._from_config(config, attn_implementation=attention).double().eval()
    bank = ExpertBank(llm, ExpertConfig(rank=2, tokens=tokens, projections=("q_proj", "up_proj")))
    bank.add(0, generator=torch.Generator().manual_seed(0))
    state = bank.state(0)
    bank.load_state(
        0, {key: torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) for key, x in state.items()}
    )
    return AnchorLM(llm, bank)


def prompts(answers: bool) -> PromptBatch:
    ids = [torch.tensor([1, 7, VIDEO_ID, *range(20, 20 + n)]) for n in (9, 6)]
    media = [
        [torch.randn(n, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(n))] for n in (5, 7)
    ]
    labels = [torch.where(torch.arange(len(row)) >= len(row) - 2, row, -100) for row in ids]
    return PromptBatch(ids, media, labels if answers else None)


def test_a_batch_may_mix_scopes() -> None:
    """Every row as if it were asked alone, whatever tokens its expert acts on; the bare backbone too."""
    lm = model("sdpa", "all")
    assert lm.bank is not None
    state = lm.bank.state(0)
    for expert, tokens in ((1, "text"), (2, "answer")):
        lm.bank.act_on(expert, tokens)
        lm.bank.load_state(expert, state)
    batch, experts = prompts(True).rows([0, 1, 0, 1, 0]), [2, 0, 1, -1, 0]
    together = lm(batch, experts)
    alone = [lm(batch.rows([row]), [expert]) for row, expert in enumerate(experts)]
    torch.testing.assert_close(together.per_sample, torch.cat([loss.per_sample for loss in alone]))
    assert together.count == sum(loss.count for loss in alone)
    assert together.per_sample[0] != together.per_sample[2] != together.per_sample[4]
    questions = prompts(False).rows([0, 1, 0, 1, 0])
    answers = lm.generate(questions, experts, 4, eos_id=-1)
    assert answers == [
        lm.generate(questions.rows([row]), [expert], 4, eos_id=-1)[0] for row, expert in enumerate(experts)
    ]
    with pytest.raises(ValueError, match="act on answer, text"):
        lm.logits(questions, experts)
    with pytest.raises(ValueError, match="before the expert is added"):
        lm.bank.act_on(1, "all")


@pytest.mark.parametrize("tokens", ["all", "text", "answer"])
def test_a_model_computes_the_same(tokens: str) -> None:
    module.register()
    found = []
    for attention in ("sdpa", module.NAME):
        lm = model(attention, tokens)
        parameters = lm.bank.train_only(0) if lm.bank else []
        loss = lm(prompts(True), [0, 0])
        loss.sum.backward()
        answers = lm.generate(prompts(False), [0, -1], 5, eos_id=-1)
        found.append((loss.per_sample.detach(), [p.grad for p in parameters], answers))
    (loss_a, grads_a, answers_a), (loss_b, grads_b, answers_b) = found
    torch.testing.assert_close(loss_a, loss_b)
    for a, b in zip(grads_a, grads_b, strict=True):
        assert (a - b).abs().max() < 1e-5 * a.abs().max()
    assert answers_a == answers_b
