"""Soft tokens in prompts, and the pool that they are chosen from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from model.language_model.anchor_lm import AnchorLM
from model.language_model.block_attention import NAME as BLOCKS
from model.language_model.block_attention import register
from model.language_model.prompt_pool import PoolConfig, PromptPool, is_pool, load_pool
from model.language_model.splice import IGNORE, SOFT_ID, PromptBatch, splice, with_soft_tokens
from model.moe.experts import NO_EXPERT, ExpertBank, ExpertConfig
from model.moe.files import read_tensor_file, write_tensor_file
from model.moe.routing_records import RoutingFeatures

WIDTH, EOS = 16, 2
WIDTHS = {"text": 5, "video": 4, "audio": 3}
PLACES = ("text", "answer")


def make_model(attention: str = "sdpa") -> AnchorLM:
    """A small LM with an expert on the answer, in float64."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
    )
    llm = LlamaForCausalLM._from_config(config, attn_implementation=attention)
    llm.double().eval().requires_grad_(False)
    bank = ExpertBank(llm, ExpertConfig(rank=2, tokens="answer"))
    bank.add(0, init={k: torch.randn(s) for k, s in bank.expected_shapes().items()})
    return AnchorLM(llm, bank)


@pytest.fixture
def model() -> AnchorLM:
    return make_model()


def make_batch(with_labels: bool = True) -> PromptBatch:
    """Rows with two media, one, and none; the last two ids are the answer."""
    generator = torch.Generator().manual_seed(1)
    starts = ([1, 5, -400, 6, -300], [1, -300], [1])
    ids = [
        torch.tensor([*start, *torch.randint(3, 50, (5 + row,), generator=generator).tolist()])
        for row, start in enumerate(starts)
    ]
    media = [[torch.randn(3 + m, WIDTH, generator=generator) for m in range(int((i < 0).sum()))] for i in ids]
    if not with_labels:
        return PromptBatch(ids, media)
    labels = [torch.cat([torch.full((len(i) - 2,), IGNORE), i[-2:]]) for i in ids]
    return PromptBatch(ids, media, labels)


def soft_tokens(seed: int = 3) -> list[Tensor]:
    """Of another length in every row."""
    generator = torch.Generator().manual_seed(seed)
    return [0.3 * torch.randn(count, WIDTH, generator=generator, dtype=torch.float64) for count in (2, 4, 3)]


def by_hand(model: AnchorLM, batch: PromptBatch, row: int, soft: Tensor, place: str) -> Tensor:
    """The spliced embeddings of one row with its soft tokens, put together by hand. (L, D)"""
    embed, ids = model.llm.get_input_embeddings(), batch.input_ids[row].tolist()
    last = max([at for at, i in enumerate(ids) if i < 0], default=-1) + 1
    cut = last if place == "text" else len(ids) - (1 if batch.labels is None else 3)
    media, pieces = iter(batch.media[row]), []
    for at, i in enumerate(ids):
        if at == cut:
            pieces.append(soft)
        pieces.append(next(media).double() if i < 0 else embed(torch.tensor([i])))
    return torch.cat(pieces)


@pytest.mark.parametrize("place", PLACES)
def test_logits_are_those_of_the_sequence_put_together_by_hand(model: AnchorLM, place: str) -> None:
    bare = AnchorLM(LlamaForCausalLM(model.llm.config).double().eval().requires_grad_(False))
    batch, soft = make_batch(), soft_tokens()
    logits = bare.logits(with_soft_tokens(batch, soft, place), [NO_EXPERT] * 3)
    for row, tokens in enumerate(soft):
        embeds = by_hand(bare, batch, row, tokens, place)
        expected = bare.llm(inputs_embeds=embeds[None]).logits[0]
        torch.testing.assert_close(logits[row].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("attention", ["sdpa", BLOCKS])
def test_the_loss_after_a_kept_prefix_and_its_gradient_are_those_of_the_whole(
    place: str, attention: str
) -> None:
    register()
    model, batch = make_model(attention), make_batch()
    soft = [tokens.requires_grad_() for tokens in soft_tokens()]
    got = model(with_soft_tokens(batch, soft, place), [NO_EXPERT] * 3)
    ours = torch.autograd.grad(got.sum, soft)
    losses = []
    for row, tokens in enumerate(soft):
        embeds = by_hand(model, batch, row, tokens, place)
        with model.bank.use([NO_EXPERT]):
            logits = model.llm(inputs_embeds=embeds[None]).logits[0]
        losses.append(F.cross_entropy(logits[-3:-1], batch.input_ids[row][-2:], reduction="sum"))
    torch.testing.assert_close(got.per_sample.double(), torch.stack(losses), rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(ours, torch.autograd.grad(torch.stack(losses).sum(), soft), strict=True):
        assert mine.abs().sum() > 0
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    assert len(model.prefixes._kept) == 3


def test_checkpointed_layers_give_the_same_loss(model: AnchorLM) -> None:
    batch = with_soft_tokens(make_batch(), soft_tokens(), "answer")
    expected = model(batch, [NO_EXPERT] * 3).sum
    whole = AnchorLM(model.llm, model.bank)
    whole.checkpointing = True
    torch.testing.assert_close(whole(batch, [NO_EXPERT] * 3).sum, expected, rtol=1e-4, atol=1e-4)
    assert not whole.prefixes._kept


@pytest.mark.parametrize("place", PLACES)
def test_an_answer_is_the_greedy_continuation_token_by_token(model: AnchorLM, place: str) -> None:
    batch, soft = make_batch(with_labels=False), soft_tokens()
    answers = model.generate(with_soft_tokens(batch, soft, place), [NO_EXPERT] * 3, 6, EOS)
    embed = model.llm.get_input_embeddings()
    for row, tokens in enumerate(soft):
        embeds, told = by_hand(model, batch, row, tokens, place), []
        for _ in range(6):
            with torch.no_grad(), model.bank.use([NO_EXPERT]):
                token = int(model.llm(inputs_embeds=embeds[None]).logits[0, -1].argmax())
            if token == EOS:
                break
            told.append(token)
            embeds = torch.cat([embeds, embed(torch.tensor([token]))])
        assert answers[row] == told


def test_rows_with_soft_tokens_with_an_expert_and_bare_ones_share_a_batch(model: AnchorLM) -> None:
    batch, soft = make_batch(), soft_tokens()
    one = with_soft_tokens(batch.rows([0]), soft[:1], "text")
    mixed = PromptBatch(
        [one.input_ids[0], *batch.input_ids[1:]],
        [one.media[0], *batch.media[1:]],
        [one.labels[0], *batch.labels[1:]],
    )
    experts = [NO_EXPERT, 0, NO_EXPERT]
    together = model(mixed, experts).per_sample
    for row, expert in enumerate(experts):
        torch.testing.assert_close(together[row], model(mixed.rows([row]), [expert]).sum)
    assert mixed.soft == [True, False, False]
    with pytest.raises(ValueError, match="prompt 0: has soft tokens and expert 0"):
        model(mixed, [0, 0, 0])


def test_soft_tokens_are_marked_and_not_learned_from() -> None:
    batch = make_batch()
    made = with_soft_tokens(batch, soft_tokens(), "answer")
    for row in range(3):
        at = made.input_ids[row].tolist().index(SOFT_ID)
        assert at == len(batch.input_ids[row]) - 3 and made.labels[row][at] == IGNORE
        assert made.lengths[row] == batch.lengths[row] + len(soft_tokens()[row])
    spliced = splice(made, torch.nn.Embedding(50, WIDTH), "right")
    assert (spliced.labels != IGNORE).sum() == 6


def make_features(rows: int = 4) -> RoutingFeatures:
    generator = torch.Generator().manual_seed(2)
    values = {name: torch.randn(rows, width, generator=generator) for name, width in WIDTHS.items()}
    present = {name: torch.ones(rows, dtype=torch.bool) for name in WIDTHS}
    present["audio"][1] = False
    return RoutingFeatures(values, present)


@pytest.fixture
def pool() -> PromptPool:
    made = PromptPool(PoolConfig(size=6, length=2, top=2), {**WIDTHS, "image": 4}, WIDTH)
    made.start(torch.nn.Embedding(50, WIDTH), torch.Generator().manual_seed(0))
    return made


def test_a_query_joins_the_modalities_each_as_long_as_the_other(pool: PromptPool) -> None:
    features = make_features()
    query = pool.query(features)
    assert query.shape == (4, 16) and query.dtype == torch.float64
    torch.testing.assert_close(query.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert not query[1, 9:12].any() and not query[:, 12:].any(), "no sound, no image"
    text = F.normalize(features.values["text"].double(), dim=1)
    torch.testing.assert_close(query[0, :5], text[0] / 3**0.5)
    torch.testing.assert_close(query[1, :5], text[1] / 2**0.5)
    wide = replace(features, values={**features.values, "text": torch.randn(4, 7)})
    with pytest.raises(ValueError, match="'text': features of width 7, the prompt pool's keys expect 5"):
        pool.query(wide)


def test_the_nearest_keys_are_chosen_and_much_chosen_ones_shunned_while_learning(pool: PromptPool) -> None:
    query = pool.query(make_features())
    cosines = F.cosine_similarity(query[:, None], pool.keys.double()[None], dim=-1)
    chosen = pool.choose(query)
    for row in range(4):
        best = sorted(range(6), key=lambda prompt: -float(cosines[row, prompt]))[:2]
        assert chosen[row].tolist() == sorted(best)
        torch.testing.assert_close(pool.pull(query, chosen)[row], 1 - cosines[row, best].mean())
        assert torch.equal(pool.choose(query[row : row + 1])[0], chosen[row])
    assert torch.equal(pool.choose(query, learning=True), chosen), "nothing counted yet"
    pool.count(chosen)
    assert pool.counts.sum() == 8
    weighed = (1 - cosines) * (1 + pool.counts)
    for row, numbers in enumerate(pool.choose(query, learning=True)):
        assert numbers.tolist() == sorted(weighed[row].argsort()[:2].tolist())
    assert torch.equal(pool.choose(query), chosen), "answering does not ask for counts"


def test_prompts_and_keys_learn_where_they_were_chosen(pool: PromptPool, model: AnchorLM) -> None:
    batch, query = make_batch(), pool.query(make_features(3))
    pool.requires_grad_(True)
    chosen = pool.choose(query)
    loss = model(pool.prompted(batch, chosen), [NO_EXPERT] * 3).sum + pool.pull(query, chosen).sum()
    loss.backward()
    used = torch.zeros(6, dtype=torch.bool).index_fill(0, chosen.flatten(), True)
    assert 0 < used.sum() < 6
    for gradient in (pool.prompts.grad.flatten(1), pool.keys.grad):
        assert torch.equal(gradient.abs().sum(1) > 0, used)


def test_a_file_keeps_every_bit(pool: PromptPool, tmp_path: Path) -> None:
    pool.count(pool.choose(pool.query(make_features())))
    path = tmp_path / "expert_task_3.pt"
    pool.save(path, 3, "base-1")
    pool.save(tmp_path / "again.pt", 3, "base-1")
    assert path.read_bytes() == (tmp_path / "again.pt").read_bytes()
    loaded, task_id = load_pool(path, "base-1")
    assert task_id == 3 and (loaded.config, loaded.widths) == (pool.config, pool.widths)
    assert list(loaded.widths) == list(pool.widths), "their order is that of the query"
    for name, tensor in pool.state().items():
        assert torch.equal(loaded.state()[name], tensor)
    assert is_pool(read_tensor_file(path))


def test_a_file_that_is_no_good_raises(pool: PromptPool, tmp_path: Path) -> None:
    path = tmp_path / "expert_task_0.pt"
    with pytest.raises(ValueError, match="no such file"):
        load_pool(path, None)
    pool.save(path, 0, "base-1")
    with pytest.raises(ValueError, match="made for base base-1, the backbone loaded is base-2"):
        load_pool(path, "base-2")
    content = read_tensor_file(path)
    for change, message in (
        ({"keys": torch.zeros(6, 3)}, r"keys has shape \(6, 3\)"),
        ({"more": torch.zeros(1)}, "1 unexpected"),
        ({"prompts": 3}, "expected prompts"),
        ({"pool": {**content["pool"], "format": 9}}, "another format"),
        ({"pool": {"format": 1}}, "no prompt pool"),
    ):
        write_tensor_file(path, {**content, **change})
        with pytest.raises(ValueError, match=message):
            load_pool(path, "base-1")
    pool.prompts.data[0] = torch.nan
    with pytest.raises(ValueError, match="prompts has values that are not finite"):
        pool.save(path, 0, "base-1")


@pytest.mark.parametrize("change", [{"top": 0}, {"top": 17}, {"length": 0}, {"place": "front"}])
def test_impossible_sizes_raise(change: dict) -> None:
    with pytest.raises(ValueError, match="prompt pool"):
        PoolConfig(**change)
