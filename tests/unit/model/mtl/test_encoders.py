"""Encoders: sizes of what they give, and weights in torchvision's layout."""

import pytest
import torch
from torchvision.models import resnet50

from model.mtl.encoders import DilatedResNet50, PlainEncoder


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
