"""A fresh expert fitted to a task looks along the states at the end of the task's prompts."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from model.language_model.anchor_lm import AnchorLM
from model.language_model.splice import PromptBatch
from model.moe.experts import ExpertBank, ExpertConfig
from train.starting_point import fitted_start

PROMPTS = [torch.arange(5 + i % 3) * (i + 2) % 37 for i in range(5)]


class StubInputs:
    """Prompts by number."""

    tokenizer = SimpleNamespace(eos_token_id=2)

    def batch(
        self, samples: Sequence[int], *, with_answers: bool, without_media: bool = False
    ) -> PromptBatch:
        assert not with_answers
        return PromptBatch([PROMPTS[i] for i in samples], [[] for _ in samples])


@pytest.mark.parametrize("tokens", ["all", "text", "answer"])
def test_a_spans_the_states_of_the_prompts_ends(tokens: str) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    llm = LlamaForCausalLM(config).eval().requires_grad_(False)
    ends = []
    norm = llm.model.layers[1].post_attention_layernorm
    hook = norm.register_forward_hook(lambda _, inputs, output: ends.append(output[0, -1]))
    for prompt in PROMPTS:
        llm(input_ids=prompt[None])
    hook.remove()
    centred = torch.stack(ends) - torch.stack(ends).mean(0)

    bank = ExpertBank(llm, ExpertConfig(rank=6, layers="all", tokens=tokens))
    state = fitted_start(
        AnchorLM(llm, bank),
        StubInputs(),  # type: ignore[arg-type]
        range(5),  # type: ignore[arg-type]
        torch.Generator().manual_seed(0),
        batch_size=2,
    )
    assert bank.task_ids == []
    bank.add(0, init=state)
    a = state["model.layers.1.mlp.gate_proj.lora_A.weight"]
    directions = torch.linalg.svd(centred, full_matrices=False)[2][:4]  # five centred states: four directions
    torch.testing.assert_close(a[:4].abs(), directions.abs() / 3**0.5, rtol=1e-3, atol=1e-4)
    random = bank.fresh_state(torch.Generator().manual_seed(0))
    assert torch.equal(a[4:], random["model.layers.1.mlp.gate_proj.lora_A.weight"][4:])
