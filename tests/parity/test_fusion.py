"""Norm fusion against the values recorded from the published AoE-MTL code."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.moe.autonomy import activation_norms, fuse


@pytest.fixture(scope="module")
def recorded(parity_root: Path) -> dict[str, torch.Tensor]:
    path = parity_root / "aoe_mtl" / "fusion.safetensors"
    if not path.is_file():
        pytest.skip(f"no recorded values at {path}")
    return load_file(path)


def test_fusion_as_recorded(recorded: dict[str, torch.Tensor]) -> None:
    cases = sorted({key.rpartition(".")[0] for key in recorded})
    assert cases
    for case in cases:
        features = recorded[f"{case}.features"].requires_grad_(True)
        fused, weights = fuse(features)
        close(activation_norms(features), recorded[f"{case}.norms"], case)
        close(weights, recorded[f"{case}.weights"], case)
        close(fused, recorded[f"{case}.fused"], case)
        (fused * recorded[f"{case}.cotangent"]).sum().backward()
        close(features.grad, recorded[f"{case}.grad_features"], case)


def close(got: torch.Tensor, expected: torch.Tensor, case: str) -> None:
    assert torch.isfinite(got).all(), case
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max(), case
