"""Encoders: sizes of what they give, and weights in torchvision's layout."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet50

from model.mtl.architectures import AOEMTL
from model.mtl.encoders import DEAR, DEAR_FOR_LONG, DilatedResNet50, PlainEncoder, set_recompute
from train.mtl.memory import LiveBytes


@torch.no_grad()
def test_dilated_resnet_loads_torchvisions_weights() -> None:
    with torch.device("meta"):
        encoder, reference = DilatedResNet50(), resnet50()
    expected = {name for name in reference.state_dict() if not name.startswith("fc.")}
    assert set(encoder.state_dict()) == expected
    assert encoder(torch.zeros(1, 3, 96, 64, device="meta")).shape == (1, 2048, 12, 8)
    state = dict(reference.state_dict())
    with pytest.raises(ValueError, match="missing .'conv1.weight'."):
        encoder.load({name: value for name, value in state.items() if name != "conv1.weight"})
    with pytest.raises(ValueError, match="not fitting .'conv1.weight'."):
        encoder.load({**state, "conv1.weight": torch.zeros(1)})


@torch.no_grad()
def test_plain_encoder_has_seven_convolutions_and_any_image_size() -> None:
    encoder = PlainEncoder((2, 3, 4, 5))
    assert sum(isinstance(part, torch.nn.Conv2d) for part in encoder.modules()) == 7
    assert encoder(torch.zeros(1, 3, 20, 28)).shape == (1, 5, 5, 7)


def step(encoder: PlainEncoder, recompute: bool, half: bool) -> tuple[list[Tensor], list[Tensor], int]:
    """Gradients, buffers afterwards, and bytes kept for the backward pass, which is gone through twice."""
    encoder.recompute_from = 0 if recompute else math.inf
    image = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    with LiveBytes([*encoder.parameters(), *encoder.buffers(), image]) as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = encoder(image)
        size = live.now
    out.float().sin().sum().backward(retain_graph=True)
    out.float().cos().sum().backward()
    grads = [p.grad.clone() for p in encoder.parameters()]
    encoder.zero_grad()
    return grads, [buffer.clone() for buffer in encoder.buffers()], size


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("soon", [False, True])
def test_recomputed_stages_give_the_same_bits_from_less_memory(half: bool, frozen: bool, soon: bool) -> None:
    one, two = PlainEncoder((4, 4, 6, 8)), PlainEncoder((4, 4, 6, 8))
    two.load_state_dict(one.state_dict())
    for encoder in (one, two):
        encoder.train(not frozen)
        encoder.soon, encoder.dear = soon, 50
    kept, again = step(one, False, half), step(two, True, half)
    for ours, theirs in zip((*kept[0], *kept[1]), (*again[0], *again[1]), strict=True):
        assert torch.equal(ours, theirs)
    assert again[2] < 0.7 * kept[2]


@pytest.mark.parametrize(
    ("dear", "again"), [(27, []), (30, ["conv1"]), (40, ["conv1", "layer1.0", "layer2.0.0"])]
)
def test_only_cheap_convolutions_run_again(dear: int, again: list[str]) -> None:
    """Multiply-adds by number: 27 in the stem, 36, 36, 54 in the next, 72 in the others."""
    encoder, image, flops = PlainEncoder((4, 4, 6, 8)), torch.rand(2, 3, 24, 32), []
    for recompute in (False, True):
        set_recompute(encoder, recompute, least=0)
        encoder.dear = dear
        with FlopCounterMode(display=False) as counter:
            encoder(image).sum().backward()
        flops.append(counter.get_total_flops())
    work = {"conv1": 12 * 16 * 4 * 27, "layer1.0": 12 * 16 * 4 * 36, "layer2.0.0": 6 * 8 * 6 * 36}
    assert flops[1] - flops[0] == sum(2 * 2 * work[name] for name in again)  # two images, two by multiply-add


def test_shared_encoders_keep_less() -> None:
    heads = torch.nn.ModuleDict({task: torch.nn.Identity() for task in "ab"})
    model = AOEMTL(["a", "b"], lambda: PlainEncoder((4, 4, 6, 8)), heads, num_experts=[1, 1])
    set_recompute(model, True)
    assert [(e.soon, e.dear) for e in model.experts_shared] == [(False, DEAR_FOR_LONG)]
    assert [(e[0].soon, e[0].dear) for e in model.experts_specific.values()] == [(True, DEAR)] * 2
