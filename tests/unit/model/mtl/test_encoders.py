"""Encoders: sizes of what they give, and weights in torchvision's layout."""

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50

from model.mtl.encoders import DilatedResNet50, PlainEncoder, set_recompute


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


def step(encoder: PlainEncoder, recompute: bool) -> tuple[list[Tensor], list[Tensor], int]:
    """Gradients, buffers afterwards, and bytes kept for the backward pass, which is gone through twice."""
    set_recompute(encoder, recompute)
    kept: dict[int, Tensor] = {}

    def save(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor
        return tensor

    weights = {p.data_ptr() for p in encoder.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        out = encoder(torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0)))
    size = sum(t.nbytes for place, t in kept.items() if place not in weights)
    out.sin().sum().backward(retain_graph=True)
    out.cos().sum().backward()
    grads = [p.grad.clone() for p in encoder.parameters()]
    encoder.zero_grad()
    return grads, [buffer.clone() for buffer in encoder.buffers()], size


def test_recomputed_stages_give_the_same_bits_from_less_memory() -> None:
    one, two = PlainEncoder((4, 4, 6, 8)), PlainEncoder((4, 4, 6, 8))
    two.load_state_dict(one.state_dict())
    kept, again = step(one, False), step(two, True)
    for ours, theirs in zip((*kept[0], *kept[1]), (*again[0], *again[1]), strict=True):
        assert torch.equal(ours, theirs)
    assert again[2] < 0.7 * kept[2]
