"""Starting points of a new expert: the directions in which the new task's own states differ, or earlier
experts, which are copied, never touched.

Legend: E experts, N states, R rank; `in`, `out` widths of a layer.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_A, _B = ".lora_A.weight", ".lora_B.weight"


def copied_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of an expert's tensors, to start from the previous or the nearest expert."""
    return {key: tensor.detach().clone() for key, tensor in state.items()}


def principal_state(fresh: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A fresh LoRA expert whose A looks where the task's states differ (EVA, arXiv 2410.07170).

    The rows of every A become the first principal directions of the layer's centred inputs, each as long as
    a random row is on average, `1/sqrt(3)`; its sign makes its largest entry positive. B stays zero, so the
    expert still starts as the bare backbone. Rows beyond the number of directions stay random.

    Args:
        fresh: a fresh LoRA expert (as of `ExpertBank.fresh_state`).
        inputs: layer key -> inputs of that layer on the bare backbone, (N, in).

    Raises:
        ValueError: a layer has no inputs, or of another width.
    """
    state = copied_state(fresh)
    for key, a in state.items():
        if not key.endswith(_A):
            continue
        x = inputs.get(key.removesuffix(_A))
        if x is None or x.ndim != 2 or x.shape[1] != a.shape[1] or not len(x):
            got = "nothing" if x is None else tuple(x.shape)
            raise ValueError(f"{key}: got inputs {got}, expected (N, {a.shape[1]})")
        x = x.double()
        _, size, directions = torch.linalg.svd(x - x.mean(0, keepdim=True), full_matrices=False)
        rounding = torch.finfo(torch.float32).eps * torch.linalg.norm(x)
        found = int((size[: len(a)] > rounding).sum())
        best = directions[:found]
        strongest = best.gather(1, best.abs().argmax(1, keepdim=True))
        a[:found] = (best * strongest.sign() / math.sqrt(3)).to(a.dtype)
    return state


def mean_state(
    states: Sequence[Mapping[str, Tensor]], weights: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """The expert whose update is nearest to the mean of the updates, each with its weight (default: equal).

    Full weights are averaged. Of low-rank updates the mean of the A and the mean of the B would give another
    product than the mean of the products, even its opposite if two experts found the same update with other
    signs; so the mean product `D = mean_e B_e A_e` is formed and cut to rank R by singular value
    decomposition, the best rank-R approximation (Eckart and Young 1936), in float64 and without ever
    building the (out, in) matrix:

        D = [B_1 .. B_E]/E [A_1; ..; A_E],  QR of both factors,  SVD of the small product

    and split as `B = U S / a`, `A = a V^T` with a = sqrt(S), at least 1/sqrt(in) so that no direction
    starts dead.

    Raises:
        ValueError: no experts, experts with different tensors, or not one positive weight for each.
    """
    check_alike(states)
    shares = relative_weights(weights, len(states))
    mean: dict[str, Tensor] = {}
    for key, like in states[0].items():
        if key.endswith(_B):
            continue
        if key.endswith(_A):
            other = key.removesuffix(_A) + _B
            a, b = mean_update([(state[key], state[other]) for state in states], shares)
            mean[key], mean[other] = a.to(like.dtype), b.to(like.dtype)
        else:
            mean[key] = weighted_mean([state[key] for state in states], shares).to(like.dtype)
    return mean


def check_alike(states: Sequence[Mapping[str, Tensor]]) -> None:
    """Raise a ValueError unless there are experts and all have the same tensors."""
    if not states:
        raise ValueError("mean of no experts; train one first")
    shapes = {key: tuple(tensor.shape) for key, tensor in states[0].items()}
    for state in states[1:]:
        if {key: tuple(tensor.shape) for key, tensor in state.items()} != shapes:
            raise ValueError(
                "experts of different kinds, ranks or layers have no mean; start from one of them"
            )


def relative_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights with mean one: equal ones are 1 exactly.

    Raises:
        ValueError: not one positive weight for each of `count` experts.
    """
    weights = [1.0] * count if weights is None else list(weights)
    if len(weights) != count or not all(weight > 0 for weight in weights):
        raise ValueError(f"weights {weights}: expected {count} positive numbers, one for each expert")
    return [weight * count / sum(weights) for weight in weights]


def weighted_mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Mean of tensors in float64; `shares` as of `relative_weights`."""
    zero = torch.zeros((), dtype=torch.float64)
    return sum((t.double() * share for t, share in zip(tensors, shares, strict=True)), zero) / len(tensors)


def mean_update(
    factors: Sequence[tuple[Tensor, Tensor]], shares: Sequence[float] | None = None
) -> tuple[Tensor, Tensor]:
    """Rank-R factors, float64, of the mean of E low-rank updates; `shares` as of `relative_weights`.

    E pairs of A (R, in), B (out, R) -> A (R, in), B (out, R)
    """
    rank, width = factors[0][0].shape
    shares = relative_weights(shares, len(factors))
    scaled = [b.double() * share for (_, b), share in zip(factors, shares, strict=True)]
    tall_b = torch.cat(scaled, 1) / len(factors)  # (out, E R)
    tall_a = torch.cat([a.double() for a, _ in factors], 0).T  # (in, E R)
    q_b, r_b = torch.linalg.qr(tall_b)
    q_a, r_a = torch.linalg.qr(tall_a)
    u, s, vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    kept = min(rank, len(s))
    a = torch.zeros(rank, width, dtype=torch.float64)
    b = torch.zeros(len(tall_b), rank, dtype=torch.float64)
    split = s[:kept].sqrt().clamp_min(1 / math.sqrt(width))
    a[:kept] = split[:, None] * (vh[:kept] @ q_a.T)
    b[:, :kept] = (q_b @ u[:, :kept]) * (s[:kept] / split)
    return a, b
