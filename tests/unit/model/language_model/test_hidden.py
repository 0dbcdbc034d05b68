"""Hidden states of the bare LLM as text features."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model.language_model.anchor_lm import AnchorLM
from model.language_model.hidden import mean_hidden_state

IDS = torch.tensor([5, 9, 11])


@torch.no_grad()
def test_it_is_the_mean_over_the_text_without_the_start_token(lm: AnchorLM) -> None:
    assert lm.bank is not None
    with lm.bank.use([-1]):
        states = lm.llm.base_model(torch.tensor([[1, 5, 9, 11]]), output_hidden_states=True).hidden_states
    for layer in (0, 2, 3):
        torch.testing.assert_close(mean_hidden_state(lm.llm, IDS, layer, 1), states[layer][0, 1:].mean(0))
    torch.testing.assert_close(mean_hidden_state(lm.llm, IDS, 0), lm.text_feature([IDS])[0])


def test_experts_stay_out_and_what_is_in_force_stays(lm: AnchorLM) -> None:
    assert lm.bank is not None
    bare = mean_hidden_state(lm.llm, IDS, 3)
    with lm.bank.use([3, 7]):
        before = lm.bank.active.selection
        assert torch.equal(mean_hidden_state(lm.llm, IDS, 3), bare)
        assert lm.bank.active.selection is before
    assert lm.bank.active.selection is None


def test_wrong_layers_and_front_ends_raise(lm: AnchorLM) -> None:
    with pytest.raises(ValueError, match=r"hidden:4: the LLM has layers 0 \(embeddings\) to 3"):
        mean_hidden_state(lm.llm, IDS, 4)
    front: Any = SimpleNamespace()
    with pytest.raises(ValueError, match="needs the LLM"):
        mean_hidden_state(front, IDS, 1)
