"""Dense losses where something is missing."""

import pytest
import torch

from model.mtl.losses import depth_loss, normal_loss, segmentation_loss


@pytest.mark.parametrize(
    ("loss", "channels", "target"),
    [
        (segmentation_loss, 4, torch.full((2, 5, 6), -1.0)),
        (depth_loss, 1, torch.zeros(2, 1, 5, 6)),
        (depth_loss, 1, torch.full((2, 1, 5, 6), float("nan"))),
        (normal_loss, 3, torch.zeros(2, 3, 5, 6)),
    ],
)
def test_nothing_measured_is_loss_0_and_gradient_0(loss, channels, target) -> None:
    predicted = torch.randn(2, channels, 5, 6, requires_grad=True)
    value = loss(predicted, target)
    value.backward()
    assert value.item() == 0
    assert not predicted.grad.any()


def test_unmeasured_pixels_do_not_count() -> None:
    depth = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    target = torch.tensor([[[[2.0, 0.0, float("nan")]]]])
    assert depth_loss(depth, target) == 1
    normals = torch.tensor([[0.0, 0.0, 2.0], [5.0, 5.0, 5.0]]).T.view(1, 3, 1, 2)
    truth = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]).T.view(1, 3, 1, 2)
    assert normal_loss(normals, truth) == 0
    assert normal_loss(-normals, truth) == 2
    scores = torch.zeros(1, 4, 1, 2)
    assert segmentation_loss(scores, torch.tensor([[[3, -1]]])) == pytest.approx(torch.tensor(4.0).log())


def test_an_all_zero_prediction_has_a_finite_gradient() -> None:
    normals = torch.zeros(1, 3, 2, 2, requires_grad=True)
    normal_loss(normals, torch.ones(1, 3, 2, 2)).backward()
    assert torch.isfinite(normals.grad).all()
