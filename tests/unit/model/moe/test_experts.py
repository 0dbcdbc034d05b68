"""Experts chosen row by row."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.moe.expert_layers import record_inputs
from model.moe.experts import NO_EXPERT, ExpertBank, ExpertConfig
from model.moe.files import read_tensor_file

MIXED = [3, NO_EXPERT, 0, 1, 0, NO_EXPERT]


def run(bank: ExpertBank, model: nn.Module, x: Tensor, ids: list[int]) -> Tensor:
    with bank.use(ids), torch.no_grad():
        return model(x)


def test_bare_rows_equal_the_backbone_bit_for_bit(
    toys: Callable, bank: ExpertBank, toy: nn.Module, x: Tensor
) -> None:
    with torch.no_grad():
        plain = toys(0)(x)
    assert torch.equal(run(bank, toy, x, [NO_EXPERT] * 6), plain)
    mixed = run(bank, toy, x, MIXED)
    assert torch.equal(mixed[[1, 5]], plain[[1, 5]])
    assert not torch.allclose(mixed[0], plain[0], atol=1e-3)


@pytest.mark.parametrize("ids", [MIXED, [0, 1, 3, 3, 1, 0]])
def test_a_mixed_batch_equals_one_by_one(bank: ExpertBank, toy: nn.Module, x: Tensor, ids: list[int]) -> None:
    mixed = run(bank, toy, x, ids)
    for row, task_id in enumerate(ids):
        alone = run(bank, toy, x[row : row + 1], [task_id])[0]
        torch.testing.assert_close(mixed[row], alone, rtol=1e-4, atol=1e-5)


def test_lora_is_the_scaled_low_rank_update(lora: ExpertBank, toy: nn.Module, x: Tensor) -> None:
    layer = toy.get_submodule("layers.2.mlp.up_proj")
    state = lora.state(1)
    a, b = (state[f"model.layers.2.mlp.up_proj.lora_{part}.weight"] for part in "AB")
    expected = x @ (layer.weight + 2.0 * b @ a).T  # alpha / rank = 6 / 3
    with lora.use([1] * 6):
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_dropout_thins_what_the_expert_adds_and_nothing_else(
    lora: ExpertBank, toy: nn.Module, x: Tensor
) -> None:
    layer = toy.get_submodule("layers.2.mlp.up_proj")
    with lora.use(MIXED), torch.no_grad():
        plain = layer(x)
        with lora.dropping(0.5):
            torch.manual_seed(0)
            thinned = [layer(x) for _ in range(2000)]
        assert torch.equal(layer(x), plain)
    assert all(torch.equal(y[[1, 5]], plain[[1, 5]]) for y in thinned)
    assert not torch.allclose(thinned[0], plain, atol=1e-3)
    deviation = torch.stack(thinned).std(0) / 2000**0.5
    assert (torch.stack(thinned).mean(0) - plain).abs().le(6 * deviation + 1e-5).all()


def test_a_fresh_lora_expert_is_the_backbone_and_depends_on_the_generator(toys: Callable, x: Tensor) -> None:
    model = toys(0)
    plain = model(x)
    bank = ExpertBank(model, ExpertConfig(rank=2), None)
    bank.add(0, generator=torch.Generator().manual_seed(5))
    bank.add(1, generator=torch.Generator().manual_seed(5))
    bank.add(2, generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(run(bank, model, x, [0] * 6), plain)
    key = "model.layers.0.mlp.down_proj.lora_A.weight"
    assert torch.equal(bank.state(0)[key], bank.state(1)[key])
    assert not torch.equal(bank.state(0)[key], bank.state(2)[key])
    assert bank.state(0)[key].abs().max() <= 1 / 20**0.5
    with pytest.raises(ValueError, match="generator"):
        bank.add(4)


def test_a_fresh_mlp_expert_is_a_trainable_copy(toys: Callable, x: Tensor) -> None:
    model = toys(0)
    bank = ExpertBank(model, ExpertConfig(kind="mlp"), None)
    bank.add(0)
    before = model.get_submodule("layers.0.mlp.up_proj").weight.clone()
    parameters = bank.train_only(0)
    with bank.use([0] * 6):
        model(x).square().mean().backward()
    torch.optim.SGD(parameters, lr=0.1).step()
    assert torch.equal(model.get_submodule("layers.0.mlp.up_proj").weight, before)
    assert not torch.equal(bank.state(0)["model.layers.0.mlp.up_proj.weight"], before)


def test_only_the_chosen_expert_learns(bank: ExpertBank, toy: nn.Module, x: Tensor) -> None:
    parameters = bank.train_only(1)
    assert [p.shape for p in parameters] == [torch.Size(s) for s in bank.expected_shapes().values()]
    with bank.use(MIXED):
        toy(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
    learning = {id(p) for p in parameters}
    others = [p for module in (toy, bank) for p in module.parameters() if id(p) not in learning]
    assert others and all(p.grad is None and not p.requires_grad for p in others)


def test_mixed_training_gives_the_gradients_of_separate_batches(
    bank: ExpertBank, toy: nn.Module, x: Tensor
) -> None:
    parameters = bank.train_only(0)
    with bank.use(MIXED):
        toy(x).square().sum().backward()
    mixed = [p.grad.clone() for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    with bank.use([0, 0]):
        toy(x[[2, 4]]).square().sum().backward()
    for got, parameter in zip(mixed, parameters, strict=True):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-5)


def test_checkpointed_recomputation_uses_the_experts_of_the_forward(
    bank: ExpertBank, toy: nn.Module, x: Tensor
) -> None:
    parameters = bank.train_only(0)
    with bank.use([0] * 6):
        toy(x).square().sum().backward()
    plain = [p.grad.clone() for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    with bank.use([0] * 6):
        loss = checkpoint(toy, x, use_reentrant=False, context_fn=bank.recompute_contexts).square().sum()
    with bank.use([1]):  # another selection in force, or none, during backward
        loss.backward()
    for got, parameter in zip(plain, parameters, strict=True):
        torch.testing.assert_close(got, parameter.grad)


def test_a_layer_outside_use_raises(bank: ExpertBank, toy: nn.Module, x: Tensor) -> None:
    with pytest.raises(RuntimeError, match=r"outside `with bank\.use"):
        toy(x)
    with pytest.raises(KeyError), bank.use([0] * 6):
        raise KeyError
    with pytest.raises(RuntimeError, match="outside"):
        toy(x)


def test_use_nests_and_checks_its_ids(bank: ExpertBank, toy: nn.Module, x: Tensor) -> None:
    with bank.use([0] * 6):
        with bank.use([1] * 6):
            pass
        got = toy(x)
    torch.testing.assert_close(got, run(bank, toy, x, [0] * 6))
    with pytest.raises(ValueError, match=r"holds \[0, 1, 3\].*\[2\]"), bank.use([0, 2]):
        pass
    with pytest.raises(ValueError, match="got ids"), bank.use([]):
        pass
    with pytest.raises(RuntimeError, match="batch of 6 rows.*2 ids"), bank.use([0, 1]):
        toy(x)


def test_values_changed_within_use_take_effect(lora: ExpertBank, toy: nn.Module, x: Tensor) -> None:
    with torch.no_grad(), lora.use(MIXED):
        before = toy(x)
        assert torch.equal(before, toy(x))
        state = {key: 2 * value for key, value in lora.state(0).items()}
        lora.load_state(0, state)
        after = toy(x)
    assert torch.equal(before[[0, 1, 3, 5]], after[[0, 1, 3, 5]])
    assert not torch.allclose(before[2], after[2])


def test_overwriting_keeps_the_parameters(bank: ExpertBank) -> None:
    parameters = bank.train_only(0)
    bank.load_state(0, bank.state(1))
    assert all(a is b for a, b in zip(parameters, bank.parameters_of(0).values(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(bank.state(0).values(), bank.state(1).values(), strict=True))


def test_the_model_keeps_its_parameters_and_gets_its_layers_back(toys: Callable, x: Tensor) -> None:
    model = toys(0)
    keys, plain = list(model.state_dict()), model(x)
    bank = ExpertBank(model, ExpertConfig(), None)
    assert list(model.state_dict()) == keys
    with pytest.raises(ValueError, match="detach"):
        ExpertBank(model, ExpertConfig(), None)
    bank.detach()
    assert torch.equal(model(x), plain)
    assert type(model.get_submodule("layers.0.mlp.up_proj")) is nn.Linear
    ExpertBank(model, ExpertConfig(kind="mlp"), None)


def test_file_keys_do_not_depend_on_the_wrapping(toys: Callable) -> None:
    wrapped = nn.ModuleDict({"llm": nn.ModuleDict({"model": toys(0)})})
    keys = list(
        ExpertBank(wrapped, ExpertConfig(layers=(1,), projections=("up_proj",)), None).expected_shapes()
    )
    assert keys == ["model.layers.1.mlp.up_proj.lora_A.weight", "model.layers.1.mlp.up_proj.lora_B.weight"]


@pytest.mark.parametrize(("layers", "numbers"), [("even", {0, 2}), ("all", {0, 1, 2, 3}), ((3, 1), {1, 3})])
def test_which_layers_carry_experts(toys: Callable, layers: str | tuple[int, ...], numbers: set[int]) -> None:
    bank = ExpertBank(toys(0), ExpertConfig(layers=layers), None)
    assert {int(key.split(".")[2]) for key in bank.expected_shapes()} == numbers


def test_layers_that_are_not_there_raise(toys: Callable) -> None:
    for config in (ExpertConfig(layers=(0, 9)), ExpertConfig(projections=("up_proj", "fc1"))):
        with pytest.raises(ValueError, match="no linear layers"):
            ExpertBank(toys(0), config, None)
    with pytest.raises(ValueError, match="share the same file key"):
        ExpertBank(nn.ModuleList([toys(0), toys(1)]), ExpertConfig(), None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "ia3"},
        {"rank": 0},
        {"alpha": 0.0},
        {"layers": "odd"},
        {"layers": ()},
        {"layers": (1, 1)},
        {"projections": ()},
    ],
)
def test_a_wrong_configuration_raises(wrong: dict) -> None:
    with pytest.raises(ValueError):
        ExpertConfig(**wrong)


def test_adding_and_removing(bank: ExpertBank) -> None:
    assert bank.task_ids == [0, 1, 3]
    for task_id, message in ((1, "exists"), (-2, "count from 0")):
        with pytest.raises(ValueError, match=message):
            bank.add(task_id, generator=torch.Generator())
    bank.remove(1)
    assert bank.task_ids == [0, 3]
    for action in (bank.remove, bank.state, bank.train_only):
        with pytest.raises(ValueError, match="no expert 1"):
            action(1)


def test_states_are_copies(bank: ExpertBank) -> None:
    state = bank.state(0)
    bank.add(2, init=state)
    for value in state.values():
        value.zero_()
    assert all(value.abs().sum() > 0 for task_id in (0, 2) for value in bank.state(task_id).values())


@pytest.mark.parametrize("kind", ["lora", "mlp"])
def test_a_16_bit_backbone_runs_and_trains(toys: Callable, x: Tensor, kind: str, tmp_path: Path) -> None:
    model = toys(0).bfloat16()
    bank = ExpertBank(model, ExpertConfig(kind=kind, rank=2), None)
    bank.add(0, generator=torch.Generator().manual_seed(0))
    bank.add(1, generator=torch.Generator().manual_seed(1))
    x = x.bfloat16()
    with bank.use([0, 1, NO_EXPERT, 0, 1, 1]), torch.no_grad():
        assert model(x).dtype == torch.bfloat16
    parameters = bank.train_only(0)
    with bank.use([0] * 6):
        model(x).float().square().mean().backward()
    assert all(p.dtype == torch.float32 and p.grad is not None for p in parameters)
    bank.save(0, tmp_path / "expert_task_0.pt")
    saved = [t for t in read_tensor_file(tmp_path / "expert_task_0.pt").values() if isinstance(t, Tensor)]
    assert {t.dtype for t in saved} == {torch.bfloat16 if kind == "mlp" else torch.float32}


def test_inputs_of_expert_layers_are_recorded_within_the_block_only(
    bank: ExpertBank, toy: nn.Module, x: Tensor
) -> None:
    with record_inputs(bank.layers) as kept:
        run(bank, toy, x, [NO_EXPERT] * 6)
        run(bank, toy, 2 * x, [NO_EXPERT] * 6)
    run(bank, toy, x, [NO_EXPERT] * 6)
    assert list(kept) == list(bank.layers)
    assert all(len(calls) == 2 for calls in kept.values())
    first = kept["model.layers.0.mlp.gate_proj"]
    assert torch.equal(first[0], x)
    assert torch.equal(first[1], 2 * x)
