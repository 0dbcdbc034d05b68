"""The interface of the architectures, experts that start alike, and the published sizes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.mtl.architectures import AOEMTL, CGC, HPS, STL, Architecture, MMoE
from model.mtl.encoders import PlainEncoder
from model.mtl.experts import ExpertCounts, break_symmetry, equal
from model.mtl.heads import deeplab_head
from model.mtl.ple import PLE

TASKS = ["segmentation", "depth", "normal"]
OUTPUTS = {"segmentation": 13, "depth": 1, "normal": 3}
IMAGE = (3, 16, 24)


def tiny_encoder() -> PlainEncoder:
    return PlainEncoder((4, 4, 4, 6))


def same_encoder() -> PlainEncoder:
    """As with pretrained weights: every call gives the same."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return tiny_encoder()


def build(cls: type[Architecture], encoder: Any = tiny_encoder, **options: Any) -> Architecture:
    heads = {task: nn.Conv2d(6, OUTPUTS[task], 1) for task in TASKS}
    return cls(TASKS, encoder, heads, img_size=IMAGE, **options)


@pytest.mark.parametrize(
    ("cls", "numbers"),
    [
        (HPS, None),
        (STL, None),
        (MMoE, [2]),
        (CGC, [1, 1]),
        (PLE, [1, 1, 2, 1]),
        (AOEMTL, [1, 2]),
        (AOEMTL, [2]),
    ],
)
def test_forward_is_shared_work_and_task_work(cls: type[Architecture], numbers: list[int] | None) -> None:
    torch.manual_seed(0)
    model = build(cls, num_experts=numbers)
    image = torch.randn(2, *IMAGE)
    outputs = model.eval()(image)
    assert list(outputs) == TASKS
    for task, output in outputs.items():
        assert output.shape == (2, OUTPUTS[task], 4, 6)
        assert torch.equal(model(image, task)[task], output)
    model.train()(image)["depth"].sum().backward()
    shared = set(model.get_share_params())
    assert shared <= set(model.parameters())
    assert bool(shared) == (cls is not STL)
    model.zero_grad_share_params()
    assert all(p.grad is None or not p.grad.any() for p in shared)


def step(model: Architecture) -> None:
    torch.manual_seed(3)
    outputs = model(torch.randn(2, *IMAGE))
    sum(output.square().mean() for output in outputs.values()).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def test_equal_experts_stay_equal_as_published_and_part_here() -> None:
    published = build(AOEMTL, same_encoder, num_experts=[2, 2], symmetry="published")
    ours = build(AOEMTL, same_encoder, num_experts=[2, 2])
    for model, alike in ((published, True), (ours, False)):
        for _ in range(3):
            step(model)
        groups = [model.experts_shared, *model.experts_specific.values()]
        assert [equal(*group) for group in groups] == [alike] * 4
    one = build(AOEMTL, same_encoder, num_experts=[1, 1], symmetry="published")
    heads = {k: v for k, v in published.state_dict().items() if k.startswith("decoders")}
    one.load_state_dict({**published.state_dict(), **heads}, strict=False)
    image = torch.randn(2, *IMAGE)
    for task in TASKS:  # twice the cost, the same function
        torch.testing.assert_close(one.eval()(image)[task], published.eval()(image)[task])


def test_only_equal_experts_are_moved_and_only_a_little() -> None:
    experts = [same_encoder(), tiny_encoder(), same_encoder()]
    assert break_symmetry(experts, torch.Generator().manual_seed(0)) == 1
    assert break_symmetry(experts) == 0
    image = torch.randn(2, *IMAGE)
    first, _, moved = (expert.eval()(image) for expert in experts)
    assert 0 < (first - moved).norm() < 0.3 * first.norm()


def test_numbers_of_experts() -> None:
    assert ExpertCounts.parse([2], TASKS) == ExpertCounts(2, (0, 0, 0))
    assert ExpertCounts.parse([2, 1], TASKS) == ExpertCounts(2, (1, 1, 1))
    assert ExpertCounts.parse([0, 1, 2, 3], TASKS) == ExpertCounts(0, (1, 2, 3))
    for wrong in ([], None, [0], [0, 0], [1, 2, 3], [-1, 2], [0, 1, 0, 1]):
        with pytest.raises(ValueError, match="num_experts"):
            ExpertCounts.parse(wrong, TASKS)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (MMoE, {"num_experts": [1, 1]}, "MMoE has shared experts only"),
        (AOEMTL, {}, "num_experts"),
        (PLE, {"num_experts": [0, 1]}, "shared expert"),
        (AOEMTL, {"num_experts": [1], "symmetry": "none"}, "symmetry 'none'"),
        (CGC, {"num_experts": [1], "rep_grad": True}, "rep_grad"),
        (PLE, {"num_experts": [1], "encoder": lambda: nn.Conv2d(3, 6, 3)}, "stages of a ResNet"),
    ],
)
def test_wrong_settings_are_named(cls: type[Architecture], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(cls, **options)


def test_other_image_size_than_the_gates() -> None:
    with pytest.raises(ValueError, match="img_size"):
        build(MMoE, num_experts=[1])(torch.randn(2, 3, 16, 16))
    assert build(AOEMTL, num_experts=[1])(torch.randn(2, 3, 32, 8))["depth"].shape == (2, 1, 8, 2)


def test_heads_must_fit_the_tasks() -> None:
    with pytest.raises(ValueError, match="one head per task"):
        HPS(TASKS, tiny_encoder, {"depth": nn.Identity()})


def test_vector_features() -> None:
    model = AOEMTL(
        ["a", "b"], lambda: nn.Linear(5, 4), {t: nn.Linear(4, 2) for t in "ab"}, num_experts=[1, 1]
    )
    rows = torch.randn(3, 5)
    shared, own = model.experts_shared[0](rows), model.experts_specific["a"][0](rows)
    norms = torch.stack([shared.norm(dim=1), own.norm(dim=1)], 1)
    weights = norms / norms.sum(1, keepdim=True)
    expected: Tensor = weights[:, :1] * shared + weights[:, 1:] * own
    torch.testing.assert_close(model.task_features("a", rows, model.shared(rows)), expected)


@pytest.mark.parametrize(
    ("cls", "numbers", "millions"),
    [(AOEMTL, [8], 26), (AOEMTL, [2, 2], 26), (CGC, [2, 2], 30), (MMoE, [8], 34), (PLE, [2, 2], 115)],
)
def test_sizes_of_the_papers_table(cls: type[Architecture], numbers: list[int], millions: int) -> None:
    heads = {task: deeplab_head(256, outputs) for task, outputs in OUTPUTS.items()}
    if cls is PLE:  # its probe runs one image of full size; the gates are counted without it
        model: Architecture = PLE(TASKS, PlainEncoder, heads, img_size=(3, 32, 32), num_experts=numbers)
        gates = [p for name, p in model.named_parameters() if "gate" in name and p.ndim == 2]
        grown = sum(p.numel() for p in gates) * (288 * 384 // 32**2 - 1)
    else:
        model = cls(TASKS, PlainEncoder, heads, img_size=(3, 288, 384), num_experts=numbers)
        grown = 0
    assert round((sum(p.numel() for p in model.parameters()) + grown) / 1e6) == millions
