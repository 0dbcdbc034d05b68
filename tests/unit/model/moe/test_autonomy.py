"""Fusion by norms, and the norms of the experts' own activations."""

import pytest
import torch
from torch import Tensor, nn

from model.moe.autonomy import activation_norms, fuse, fusion_weights, mix, record_activations
from model.moe.experts import ExpertBank


def test_fusion_weighs_by_norm() -> None:
    y = torch.zeros(2, 2, 3, 1)
    y[0, 0, 0], y[0, 1, 1] = 3.0, 1.0
    fused, weights = fuse(y)
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0.25], [0.0, 0.0]]))
    torch.testing.assert_close(fused[0, :, 0], torch.tensor([2.25, 0.25, 0.0]))
    assert fused[1].abs().max() == 0
    with pytest.raises(ValueError, match="expected \\(batch, experts"):
        fuse(torch.ones(2, 3))


def test_a_silent_expert_has_gradient_zero() -> None:
    y = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)
    y[:, 1] = 0
    y.requires_grad_(True)
    activation_norms(y).sum().backward()
    assert torch.isfinite(y.grad).all() and y.grad[:, 1].abs().max() == 0
    torch.testing.assert_close(y.grad[0, 0].norm(), torch.ones((), dtype=torch.float64))


def test_gradients_of_the_fusion() -> None:
    y = torch.randn(
        2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda v: fuse(v)[0], (y,))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
def test_gradients_are_those_of_the_single_operations(
    dtype: torch.dtype, tolerance: float, layout: torch.memory_format
) -> None:
    """Through the fused map and through the weights, with a silent expert in one sample."""
    torch.manual_seed(0)
    maps = [torch.randn(2, 6, 7, 5, dtype=dtype) * scale for scale in (1, 3, 0.5)]
    maps[1][0] = 0
    found = []
    for whole in (True, False):
        leaves = [one.clone(memory_format=layout).requires_grad_() for one in maps]
        if whole:
            fused, weights = fuse(leaves)
        else:
            weights = fusion_weights(torch.cat([activation_norms(leaf[:, None]) for leaf in leaves], 1))
            fused = mix(leaves, weights)
        (fused.sin().sum() + (weights * torch.tensor([1.0, -2.0, 5.0])).sum()).backward()
        found.append((fused.detach(), *(leaf.grad for leaf in leaves)))
    assert torch.equal(found[0][0], found[1][0])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


def test_maps_of_unequal_types_and_shapes() -> None:
    y = [torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4).bfloat16().requires_grad_()]
    fuse(y)[0].sum().backward()
    assert [one.grad.dtype for one in y] == [torch.float32, torch.bfloat16]
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\), \(2, 3, 1, 1\).*all alike"):
        fuse([y[0], y[0][:, :, :1, :1]])


def test_fusion_of_vectors() -> None:
    y = [torch.randn(3, 7, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda *v: fuse(v), y)


def test_weights_sum_to_one_up_to_eps() -> None:
    norms = torch.tensor([[1e-9, 1e-9], [2.0, 6.0]], dtype=torch.float64)
    torch.testing.assert_close(
        fusion_weights(norms).sum(1), torch.tensor([2e-9 / 1.2e-8, 1.0], dtype=torch.float64)
    )


def test_recorded_norms_are_those_of_the_low_rank_activations(
    lora: ExpertBank, toy: nn.Module, x: Tensor
) -> None:
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[0, 3:] = False
    inputs: list[tuple[str, Tensor]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, key=key: inputs.append((key, args[0])))
        for key, layer in lora.layers.items()
    ]
    with torch.no_grad(), lora.use([-1] * 6), record_activations(lora, mask) as record:
        toy(x)
    for hook in hooks:
        hook.remove()
    assert record.task_ids == (0, 1, 3) and record.norms.shape == (6, 3)
    parts = [(seen @ lora.state(1)[f"{key}.lora_A.weight"].T).norm(dim=2) for key, seen in inputs]  # (B, T)
    expected = torch.stack([part[0, :3].mean() for part in parts]).mean()
    torch.testing.assert_close(record.norms[0, 1].float(), expected)
    with torch.no_grad(), lora.use([-1] * 6), record_activations(lora, mask, [3, 1]) as some:
        toy(x)
    assert some.task_ids == (3, 1) and torch.equal(some.norms, record.norms[:, [2, 1]])
    with torch.no_grad(), lora.use([-1] * 6):
        toy(x)  # outside the block nothing is recorded
    assert record.layers == len(inputs)


def test_recording_needs_lora_experts_and_a_run(bank: ExpertBank) -> None:
    if bank.config.kind == "mlp":
        with pytest.raises(ValueError, match="needs LoRA experts"), record_activations(bank):
            pass
    else:
        with record_activations(bank) as record:
            pass
        with pytest.raises(ValueError, match="nothing|no activation"):
            _ = record.norms
