"""The fusion rule alone, in float64."""

import torch

from model.moe.autonomy import activation_norms, fuse
from tests.parity.aoe_sets import FUSION
from tests.parity.recorded import RecordedSet


def test_fusion_as_recorded(aoe: RecordedSet) -> None:
    recorded = aoe.file("fusion.safetensors")
    cases = sorted({key.rpartition(".")[0] for key in recorded})
    assert cases
    for case in cases:
        features = recorded[f"{case}.features"].requires_grad_(True)
        fused, weights = fuse(features)
        listed, _ = fuse(list(features.detach().unbind(1)))
        assert torch.equal(listed, fused), case
        assert recorded.compare(f"{case}.norms", activation_norms(features), FUSION)
        assert recorded.compare(f"{case}.weights", weights, FUSION)
        assert recorded.compare(f"{case}.fused", fused, FUSION)
        (fused * recorded[f"{case}.cotangent"]).sum().backward()
        assert recorded.compare(f"{case}.grad_features", features.grad, FUSION)
