"""Every architecture: forward in both modes, what enters the heads, fusion weights, losses, all gradients."""

import torch
from torch import Tensor

from model.mtl.architectures import AOEMTL, CGC
from model.mtl.heads import to_image
from tests.parity.aoe_sets import (
    BACKWARD,
    EXACT,
    FORWARD,
    LOSS,
    ArchitectureCase,
    architecture_case,
    losses_of,
)
from tests.parity.recorded import Recorded, RecordedSet


def test_index_and_files_name_the_same_cases(aoe: RecordedSet) -> None:
    files = {
        name.removeprefix("arch_").removesuffix(".safetensors") for name in aoe.names("arch_*.safetensors")
    }
    assert files == set(aoe.file("arch_index.json")["cases"])


def test_sizes(aoe: RecordedSet, architecture: str) -> None:
    case = architecture_case(aoe, architecture)
    model, index = case.model(), case.index
    assert sum(parameter.numel() for parameter in model.parameters()) == index["n_params"]
    assert list(case.tensors["input"].shape) == index["shapes"]["input"]
    assert index["shapes"]["input"] == [case.sizes["batch"], 3, *case.sizes["image"]]
    assert index["ew_weights"] == [1.0] * len(case.tasks)


def test_training_step(aoe: RecordedSet, architecture: str) -> None:
    case = architecture_case(aoe, architecture)
    recorded, model = case.tensors, case.model()
    outputs, full, inputs = run(case, model)
    losses = losses_of(full, case.targets)
    for name, buffer in model.named_buffers():
        recorded.compare(f"state_after.{name}", buffer, FORWARD)
    for task in case.tasks:
        assert recorded.compare(f"out.{task}", outputs[task], FORWARD)
        assert recorded.compare(f"full.{task}", full[task], FORWARD)
    assert recorded.compare("losses", losses, LOSS)
    recorded.notes.close(losses, torch.tensor(case.index["losses"]), LOSS, case.name)
    losses.sum().backward()
    assert recorded.compare("grad_input", inputs.grad, BACKWARD)
    without = []
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            without.append(name)
        else:
            assert recorded.compare(f"grad.{name}", parameter.grad, BACKWARD), name
    assert without == case.index["params_without_grad"]


def run(
    case: ArchitectureCase, model: torch.nn.Module
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Head outputs, the same at the size of the image, and the input that takes a gradient."""
    parameter = next(model.parameters())
    inputs = case.tensors["input"].to(parameter.dtype).requires_grad_(True)
    outputs = model(inputs)
    full = {task: to_image(out, tuple(case.sizes["image"])) for task, out in outputs.items()}
    return outputs, full, inputs


def test_losses_in_float64(aoe: RecordedSet, architecture: str) -> None:
    case = architecture_case(aoe, architecture)
    model = case.model(torch.float64)
    _, full, _ = run(case, model)
    losses = losses_of(full, case.targets)
    assert case.tensors.compare("losses_f64", losses, EXACT)
    case.tensors.notes.close(
        losses, torch.tensor(case.index["losses_f64"], dtype=torch.float64), LOSS, case.name
    )
    losses.sum().backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    assert case.tensors.compare("grad_norm_f64", torch.cat(gradients).norm()[None], EXACT)


def test_task_by_task(aoe: RecordedSet, architecture: str) -> None:
    """What enters the heads, the weights of the experts, and evaluation with the buffers after the step."""
    case = architecture_case(aoe, architecture)
    recorded, model = case.tensors, case.model()
    compare_fused(case, model, recorded)
    model = case.model()
    after = {k.removeprefix("state_after."): recorded[k] for k in recorded if k.startswith("state_after.")}
    model.load_state_dict(after, strict=False)
    with torch.no_grad():
        for task, output in model.eval()(recorded["input"]).items():
            assert recorded.compare(f"out_eval.{task}", output, FORWARD)
            (alone,) = model(recorded["input"], task).values()
            assert torch.equal(alone, output)


@torch.no_grad()
def compare_fused(case: ArchitectureCase, model: torch.nn.Module, recorded: Recorded) -> None:
    inputs = recorded["input"]
    shared = model.shared(inputs)
    for task in case.tasks:
        fused = model.task_features(task, inputs, shared)
        assert recorded.compare(f"fused.{task}", fused, FORWARD)
        assert list(fused.shape) == case.index["shapes"]["fused"]
        if isinstance(model, AOEMTL | CGC):
            assert recorded.compare(f"fusion_weights.{task}", model.fusion_weights(task, inputs), FORWARD)
