"""Our LoRA experts against PEFT's on the same weights: outputs, gradients, two optimiser steps."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from model.moe.experts import ExpertBank, ExpertConfig

# PEFT reads a name that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

CONFIGS = {
    "mlp": ExpertConfig(rank=4, alpha=12.0),
    "attention": ExpertConfig(
        rank=4, alpha=12.0, projections=("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    ),
}
TASK = 0


def small_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=64,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).eval()


def peft_name(key: str) -> str:
    """Key of our file -> name of PEFT's parameter."""
    return "base_model.model." + key.replace(".weight", ".default.weight")


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, 64, (3, 11), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=CONFIGS)
def ours(request: pytest.FixtureRequest) -> tuple[nn.Module, ExpertBank]:
    model = small_llama()
    bank = ExpertBank(model, CONFIGS[request.param], None)
    generator = torch.Generator().manual_seed(2)
    bank.add(TASK, generator=generator)
    state = bank.state(TASK)
    bank.load_state(TASK, {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in state.items()})
    return model, bank


@pytest.fixture
def theirs(ours: tuple[nn.Module, ExpertBank]) -> nn.Module:
    made = ours[1].config
    config = LoraConfig(
        r=made.rank,
        lora_alpha=int(made.alpha),
        lora_dropout=0.0,
        target_modules=list(made.projections),
        layers_to_transform=[0, 2],
    )
    model = get_peft_model(small_llama(), config)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for key, value in ours[1].state(TASK).items():
            parameters[peft_name(key)].copy_(value)
    return model.eval()


def close(got: Tensor, expected: Tensor) -> None:
    error = (got - expected).abs().max() / expected.abs().max()
    assert error < 1e-5, f"relative error {error:.1e}"


def loss_of(logits: Tensor, ids: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def test_the_same_parameters_are_adapted(ours: tuple[nn.Module, ExpertBank], theirs: nn.Module) -> None:
    trained = {name for name, p in theirs.named_parameters() if p.requires_grad}
    assert trained == {peft_name(key) for key in ours[1].expected_shapes()}


def test_outputs_agree(ours: tuple[nn.Module, ExpertBank], theirs: nn.Module, ids: Tensor) -> None:
    model, bank = ours
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits
        with bank.use([TASK] * 3):
            close(model(input_ids=ids).logits, expected)
        with bank.use([TASK, -1, TASK]):  # the mixed path
            close(model(input_ids=ids).logits[[0, 2]], expected[[0, 2]])


def test_gradients_agree(ours: tuple[nn.Module, ExpertBank], theirs: nn.Module, ids: Tensor) -> None:
    model, bank = ours
    bank.train_only(TASK)
    with bank.use([TASK] * 3):
        loss_of(model(input_ids=ids).logits, ids).backward()
    loss_of(theirs(input_ids=ids).logits, ids).backward()
    expected = dict(theirs.named_parameters())
    for key, parameter in bank.parameters_of(TASK).items():
        close(parameter.grad, expected[peft_name(key)].grad)


@pytest.mark.parametrize("optimiser", [torch.optim.AdamW, torch.optim.SGD])
def test_two_steps_agree(
    ours: tuple[nn.Module, ExpertBank], theirs: nn.Module, ids: Tensor, optimiser: Callable
) -> None:
    model, bank = ours
    before = bank.state(TASK)
    mine = optimiser(bank.train_only(TASK), lr=1e-2)
    other = optimiser([p for p in theirs.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        mine.zero_grad()
        with bank.use([TASK] * 3):
            loss_of(model(input_ids=ids).logits, ids).backward()
        mine.step()
        other.zero_grad()
        loss_of(theirs(input_ids=ids).logits, ids).backward()
        other.step()
    expected = dict(theirs.named_parameters())
    for key, value in bank.state(TASK).items():
        update = expected[peft_name(key)].detach() - before[key]
        error = (value - before[key] - update).abs().max() / update.abs().max()
        assert error < 1e-3, f"{key}: {error:.1e} of the largest update"
