"""Task by task gives the gradients of one graph over all tasks."""

from itertools import product
from pathlib import Path

import pytest
import torch

from model.mtl.architectures import AOEMTL, HPS, STL, Architecture
from model.mtl.encoders import set_recompute
from model.mtl.ple import PLE
from tests.unit.train.mtl.small import EXPERTS, TASKS, batch, make_trainer
from train.mtl.choices import WEIGHTINGS, WeightingConfig, make_weighting
from train.mtl.gradient_weightings import MGDA_NORMALISATIONS

VARIANTS = [*((name, "none") for name in WEIGHTINGS), *(("MGDA", gn) for gn in MGDA_NORMALISATIONS[1:])]


@pytest.mark.parametrize(
    ("architecture", "weighting"),
    [
        *product(EXPERTS, ["EW", "FAMO"]),
        *((cls, w) for cls, w in product(EXPERTS, ["UW", "MGDA", "GradNorm"]) if cls in (AOEMTL, PLE)),
    ],
)
def test_gradients_are_those_of_one_graph(
    architecture: type[Architecture], weighting: str, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, architecture, weighting)
    trainer.weighting.begin_epoch([[1.0, 2.0]])
    trainer.model.double()
    for head in trainer.model.decoders.values():
        head[0].p = 0.0
    inputs, targets = batch(range(3))
    doubled = (inputs.double(), {task: target.double() for task, target in targets.items()})
    outputs = trainer.model(doubled[0])
    losses = torch.stack(
        [rule.loss(rule.prepare(outputs[t], doubled[1][t]), doubled[1][t]) for t, rule in TASKS.items()]
    )
    rows = []
    for loss in losses:
        trainer.model.zero_grad()
        loss.backward(retain_graph=True)
        rows.append({p: p.grad.clone() for p in trainer.model.parameters() if p.grad is not None})
    trainer.model.zero_grad()
    shared = set(trainer.model.get_share_params())
    flat = [torch.cat([row[p].flatten() for p in row if p in shared]) for row in rows if shared & set(row)]
    table = torch.stack(flat) @ torch.stack(flat).T if flat else None
    coefficients = make_trainer(tmp_path, architecture, weighting).weighting
    coefficients.begin_epoch([[1.0, 2.0]])
    weights = coefficients.coefficients(losses.detach().float(), table)
    trainer.backward(*doubled)
    for parameter in trainer.model.parameters():
        factors = weights.shared if parameter in shared else weights.own
        expected = sum(
            factor * row[parameter]
            for factor, row in zip(factors.tolist(), rows, strict=True)
            if parameter in row
        )
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("invalid", [("far",), ("near", "far")])
@pytest.mark.parametrize("architecture", [HPS, AOEMTL, PLE, STL])
@pytest.mark.parametrize(("name", "mgda_gn"), VARIANTS)
def test_all_invalid_tasks_give_loss_0_and_no_nan(
    name: str, mgda_gn: str, architecture: type[Architecture], invalid: tuple[str, ...], tmp_path: Path
) -> None:
    """Between two steps with valid ones, which must not suffer from it."""
    trainer = make_trainer(tmp_path, architecture)
    weighting = make_weighting(WeightingConfig(name, mgda_gn=mgda_gn), len(TASKS))
    weighting.begin_epoch([[1.0, 2.0]])
    trainer.backward.weighting = weighting
    parameters = [*trainer.model.parameters(), *weighting.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-2)
    for none in ((), invalid, ()):
        inputs, targets = batch(range(3))
        optimizer.zero_grad()
        result = trainer.backward(inputs, targets | {task: torch.zeros_like(targets[task]) for task in none})
        assert [loss == 0 for loss in result.losses.tolist()] == [task in none for task in TASKS]
        assert torch.isfinite(result.weights).all()
        for parameter in parameters:
            assert parameter.grad is None or torch.isfinite(parameter.grad).all()
        optimizer.step()


@pytest.mark.parametrize("weighting", ["EW", "PCGrad"])
@pytest.mark.parametrize("architecture", [HPS, AOEMTL, PLE])
def test_recomputing_changes_no_bit(architecture: type[Architecture], weighting: str, tmp_path: Path) -> None:
    trainers = [make_trainer(tmp_path, architecture, weighting) for _ in range(2)]
    set_recompute(trainers[0].model, True, least=0)
    set_recompute(trainers[1].model, False)
    for trainer in trainers:
        torch.manual_seed(1)
        trainer.backward(*batch(range(3)))
    pairs = zip(*(trainer.model.named_parameters() for trainer in trainers), strict=True)
    for (name, ours), (_, theirs) in pairs:
        assert torch.equal(ours.grad, theirs.grad), name
    for ours, theirs in zip(*(trainer.model.buffers() for trainer in trainers), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("architecture", EXPERTS)
def test_a_task_s_gradients_have_their_place_before_its_maps(
    architecture: type[Architecture], tmp_path: Path
) -> None:
    """And only its own: a parameter that a step leaves alone must stay without a gradient."""
    trainer = make_trainer(tmp_path, architecture)
    model, seen = trainer.model, []
    for task in TASKS:

        def look(*_: object, task: str = task) -> None:
            placed = {name for name, p in model.named_parameters() if p.grad is not None}
            own = {id(p) for module in model.task_modules(task) for p in module.parameters()}
            assert {name for name, p in model.named_parameters() if id(p) in own} <= placed
            seen.append((task, len(placed)))

        model.decoders[task].register_forward_pre_hook(look)
    trainer.backward(*batch(range(3)))
    assert [task for task, _ in seen] == list(TASKS) and seen[0][1] < seen[1][1]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.ndim > 1)


@pytest.mark.parametrize("weighting", ["EW", "MGDA"])
def test_what_no_pass_comes_by_has_no_gradient(weighting: str, tmp_path: Path) -> None:
    """Zeros in its place would let weight decay move it. A frozen shared expert is no obstacle."""
    trainer = make_trainer(tmp_path, AOEMTL, weighting)
    for module in (trainer.model.decoders["far"], trainer.model.experts_shared[0]):
        module.register_parameter("idle", torch.nn.Parameter(torch.ones(3)))
    trainer.backward(*batch(range(3)))
    idle = {name for name, p in trainer.model.named_parameters() if p.grad is None}
    assert idle == {"decoders.far.idle", "experts_shared.0.idle"}
    trainer.model.zero_grad()
    for expert in trainer.model.experts_shared:
        expert.requires_grad_(False)
    trainer.backward(*batch(range(3)))
    assert all(p.grad is None for p in trainer.model.experts_shared.parameters())
    assert trainer.model.experts_specific["far"][0].conv1.weight.grad is not None
