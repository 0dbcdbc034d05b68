"""Experts on the end of a prompt: what comes before is the bare backbone's, kept, and shared."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from model.language_model.anchor_lm import AnchorLM
from model.language_model.prefix import PrefixBounds, PrefixCache, answer_cache, as_cache, stack_prefixes
from model.language_model.splice import IGNORE, PromptBatch
from model.moe.experts import NO_EXPERT, ExpertBank, ExpertConfig

WIDTH = 16


def make_model(tokens: str) -> AnchorLM:
    """A small LM with one expert that changes a lot."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    llm = LlamaForCausalLM(config).eval().requires_grad_(False)
    bank = ExpertBank(llm, ExpertConfig(rank=2, layers="all", tokens=tokens))
    bank.add(0, generator=torch.Generator().manual_seed(0))
    for name, value in bank.parameters_of(0).items():
        if "lora_B" in name:
            value.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    return AnchorLM(llm, bank)


@pytest.fixture
def model() -> AnchorLM:
    """Its expert acts on the text after the media."""
    return make_model("text")


def prompt(seed: int, tokens: int, text: int) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Ids with one medium in front, its tokens, and labels on the last two ids."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 50, (text,), generator=generator)
    ids = torch.cat([torch.tensor([1, 5, -400]), ids])
    labels = torch.full_like(ids, IGNORE)
    labels[-2:] = ids[-2:]
    return ids, [torch.randn(tokens, WIDTH, generator=generator)], labels


def batch_of(*prompts: tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]) -> PromptBatch:
    return PromptBatch([p[0] for p in prompts], [p[1] for p in prompts], [p[2] for p in prompts])


def token_by_token(model: AnchorLM, ids: torch.Tensor, media: torch.Tensor) -> torch.Tensor:
    """Logits (L, V) after the media: the prefix on the bare backbone, then one text token after the other."""
    llm, cache = model.llm, DynamicCache(config=model.llm.config)
    embed = llm.get_input_embeddings()
    assert model.bank is not None
    with torch.no_grad():
        with model.bank.use([NO_EXPERT]):
            llm(inputs_embeds=torch.cat([embed(ids[:2]), media])[None], past_key_values=cache, use_cache=True)
        rows = []
        with model.bank.use([0]):
            for token in ids[3:]:
                rows.append(
                    llm(input_ids=token.view(1, 1), past_key_values=cache, use_cache=True).logits[0, -1]
                )
    return torch.stack(rows)


def test_loss_is_that_of_the_text_read_token_by_token(model: AnchorLM) -> None:
    first, second = prompt(1, 4, 7), prompt(2, 6, 5)
    loss = model(batch_of(first, second), [0, 0])
    for row, (ids, media, _) in enumerate((first, second)):
        logits = token_by_token(model, ids, media[0])
        expected = torch.nn.functional.cross_entropy(logits[-3:-1], ids[-2:], reduction="sum")
        torch.testing.assert_close(loss.per_sample[row], expected, rtol=1e-4, atol=1e-4)


def test_the_expert_matters_after_the_media_only(model: AnchorLM) -> None:
    batch = batch_of(prompt(1, 4, 7))
    with_expert, bare = model(batch, [0]).sum, model(batch, [NO_EXPERT]).sum
    assert abs(float(with_expert - bare)) > 0.1
    whole = AnchorLM(model.llm)  # the plain path gives the same bare loss
    assert model.bank is not None
    with model.bank.use([NO_EXPERT]):
        torch.testing.assert_close(whole(batch, [NO_EXPERT]).sum, bare, rtol=1e-4, atol=1e-4)


def test_answers_of_a_mixed_batch_equal_those_alone(model: AnchorLM) -> None:
    prompts = [prompt(seed, tokens, text) for seed, tokens, text in ((1, 4, 7), (2, 6, 5), (3, 5, 9))]
    experts = [0, NO_EXPERT, 0]
    together = model.generate(PromptBatch([p[0] for p in prompts], [p[1] for p in prompts]), experts, 6, 2)
    for row, (ids, media, _) in enumerate(prompts):
        assert model.generate(PromptBatch([ids], [media]), [experts[row]], 6, 2) == [together[row]]


def test_gradients_reach_the_expert_and_nothing_else(model: AnchorLM) -> None:
    assert model.bank is not None
    parameters = model.bank.train_only(0)
    model(batch_of(prompt(1, 4, 7)), [0]).sum.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters)
    assert all(parameter.grad is None for parameter in model.llm.parameters())


@pytest.mark.parametrize("tokens", ["text", "answer"])
def test_rows_with_and_without_media_answer_as_alone(tokens: str) -> None:
    model = make_model(tokens)
    ids, media, labels = prompt(1, 4, 7)
    bare = torch.tensor([1, 5, 6, 7, 9])
    bare_labels = torch.tensor([IGNORE, IGNORE, IGNORE, 7, 9])
    together = model(PromptBatch([ids, bare], [media, []], [labels, bare_labels]), [0, 0])
    for row, one in enumerate((batch_of((ids, media, labels)), batch_of((bare, [], bare_labels)))):
        torch.testing.assert_close(together.per_sample[row], model(one, [0]).sum, rtol=1e-4, atol=1e-4)
    questions = PromptBatch([ids, bare], [media, []])
    alone = [
        model.generate(PromptBatch([i], [m]), [0], 4, 2)[0]
        for i, m in zip(questions.input_ids, questions.media, strict=True)
    ]
    assert model.generate(questions, [0, 0], 4, 2) == alone


def test_a_question_before_the_media_takes_the_full_path(model: AnchorLM) -> None:
    """Its expert acts on every token of that row, also beside a row with its question behind."""
    everywhere = make_model("all")
    ids, media, labels = prompt(3, 5, 8)
    late = torch.cat([ids[3:9], ids[:3], ids[9:]])  # six tokens, two more, the medium, the last two
    labels_of_both = [labels, torch.where(labels != IGNORE, late, IGNORE)]
    both = PromptBatch([ids, late], [media, media], labels_of_both, [False, True])
    found = model(both, [0, 0]).per_sample
    alone = PromptBatch([late], [media], labels_of_both[1:])
    torch.testing.assert_close(found[1:], everywhere(alone, [0]).per_sample)
    assert not torch.allclose(found[1:], model(alone, [0]).per_sample), "the prefix would be left alone"
    torch.testing.assert_close(found[:1], model(batch_of((ids, media, labels)), [0]).per_sample)
    asked = PromptBatch([ids[:-2], late[:-2]], [media, media], early=[False, True])
    assert model.generate(asked, [0, 0], 3, 2)[1:] == everywhere.generate(asked.rows([1]), [0], 3, 2)
    norms = model.activation_norms(asked.rows([1]))
    torch.testing.assert_close(norms, everywhere.activation_norms(asked.rows([1])))


def test_an_answer_expert_acts_from_the_last_prompt_token_on() -> None:
    model = make_model("answer")
    ids, media, labels = prompt(3, 5, 8)
    embed, cache = model.llm.get_input_embeddings(), DynamicCache(config=model.llm.config)
    assert model.bank is not None
    with torch.no_grad():
        with model.bank.use([NO_EXPERT]):  # all but the last prompt token and the two of the answer
            prefix = torch.cat([embed(ids[:2]), media[0], embed(ids[3:-3])])
            model.llm(inputs_embeds=prefix[None], past_key_values=cache, use_cache=True)
        with model.bank.use([0]):
            logits = model.llm(input_ids=ids[None, -3:-1], past_key_values=cache, use_cache=True).logits[0]
    expected = torch.nn.functional.cross_entropy(logits, ids[-2:], reduction="sum")
    loss = model(batch_of((ids, media, labels)), [0]).sum
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    first = model.generate(PromptBatch([ids[:-2]], [media]), [0], 1, 2)
    assert first == [[int(logits[0].argmax())]] or int(logits[0].argmax()) == 2


def test_prefixes_are_computed_once_and_bounded() -> None:
    calls: list[int] = []

    def compute(ids: torch.Tensor, media: list[torch.Tensor]) -> torch.Tensor:
        calls.append(int(ids[0]))
        return torch.zeros(2, 1, 5, 4)

    cache = PrefixCache(compute, PrefixBounds(memory=2 * 160))  # type: ignore[arg-type]
    for number in (1, 2, 1, 3, 1, 2):
        cache.get(torch.tensor([number]), [torch.ones(2, 3)])
    assert calls == [1, 2, 3, 2], "two fit: 2 was dropped for 3, and came back"
    assert cache.size <= 2 * 160
    cache.get(torch.tensor([1]), [torch.zeros(2, 3)])
    assert calls[-1] == 1, "other media, another prefix"


def test_what_does_not_fit_goes_to_disk_and_comes_back(tmp_path: Path) -> None:
    made: list[int] = []

    def compute(ids: torch.Tensor, media: object) -> torch.Tensor:
        made.append(int(ids))
        return torch.full((4, 1, 2, 2), float(ids))  # 64 bytes

    cache = PrefixCache(compute, PrefixBounds(memory=64, disk=128, folder=tmp_path / "d"))
    for number in (0, 1, 2, 3, 0, 1, 3, 2):
        assert cache.get(torch.tensor([number]), []).unique().item() == number
        assert cache.size <= 64 and cache.disk_size <= 128
    assert made == [0, 1, 2, 3, 3, 2]  # 0 and 1 came back from disk, for the others there was no room
    [folder] = (tmp_path / "d").iterdir()
    assert len(list(folder.glob("*.pt"))) == 2
    cache.clear()
    assert (cache.size, cache.disk_size, list(folder.glob("*.pt"))) == (0, 0, [])
    cache.get(torch.tensor([1]), [])
    assert made[-1] == 1
    del cache
    assert not folder.exists()


def test_an_answer_s_cache_grows_in_place_and_gives_what_a_copied_one_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    prefixes = [torch.randn(4, 2, length, 3, generator=generator) for length in (5, 3)]  # two layers
    copied = as_cache(stack_prefixes(prefixes)[0])
    grown = as_cache(stack_prefixes(prefixes, room=3)[0])
    empty, fresh = DynamicCache(), answer_cache(2)
    places = set()
    for tokens in (2, 1, 1):  # the last one has no room left
        new = [torch.randn(2, 2, tokens, 3, generator=generator) for _ in range(2)]
        for layer in range(2):
            for plain, roomy in ((copied, grown), (empty, fresh)):
                expected, found = plain.update(*new, layer), roomy.update(*new, layer)
                assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
                assert plain.get_seq_length(layer) == roomy.get_seq_length(layer)
        places.add((grown.layers[0].keys.data_ptr(), fresh.layers[0].values.data_ptr()))
    assert len({grown for grown, _ in places}) == 2, "moved when its room was used up, not before"
    assert len({fresh for _, fresh in places}) == 1, "two tokens after the prompt had room"
