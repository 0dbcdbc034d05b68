"""Grouping tasks by their anchors and folding the experts of a group."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from model.moe.anchors import Anchor
from model.moe.experts import ExpertBank
from model.moe.merging import (
    METHODS,
    FoldConfig,
    anchor_distances,
    fold,
    group_tasks,
    low_rank_factors,
    ties_update,
)
from model.moe.routing import Router, RouterConfig, RoutingFeatures

KEY = "model.layers.0.mlp.up_proj"


def product(state: dict[str, Tensor], key: str = KEY) -> Tensor:
    return state[f"{key}.lora_B.weight"].double() @ state[f"{key}.lora_A.weight"].double()


def expert(seed: int, rank: int = 3, width: int = 12, out: int = 20) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, width, generator=generator), torch.randn(out, rank, generator=generator)
    return {f"{KEY}.lora_A.weight": a, f"{KEY}.lora_B.weight": b}


def best(update: Tensor, rank: int) -> Tensor:
    """The best rank-R approximation by the full decomposition."""
    u, s, vh = torch.linalg.svd(update, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted.to(got), rtol=1e-5, atol=1e-5)  # factors are float32


# -- folding


@pytest.mark.parametrize(("rank", "width", "out"), [(3, 12, 20), (8, 12, 20), (8, 20, 12)])
def test_svd_is_the_best_low_rank_weighted_mean(rank: int, width: int, out: int) -> None:
    states = [expert(seed, rank, width, out) for seed in range(3)]  # 24 directions for 12 and 20
    weights = [1.0, 2.0, 5.0]
    dense = torch.stack([w * product(state) for w, state in zip(weights, states, strict=True)]).sum(0) / 8
    close(product(fold(states, FoldConfig("svd"), weights)), best(dense, rank))
    close(product(fold(states, FoldConfig("svd_sum"), weights)), 3 * best(dense, rank))


def test_svd_is_exact_where_the_ranks_add_up_to_no_more_than_one_expert_has() -> None:
    states = [expert(seed) for seed in range(3)]
    for state in states:
        state[f"{KEY}.lora_B.weight"][:, 1:] = 0  # rank 1 each
    close(product(fold(states, FoldConfig("svd_sum"))), sum(product(state) for state in states))


def test_average_is_the_mean_update_for_a_common_a_only() -> None:
    first, second = expert(0), expert(1)
    common = {**second, f"{KEY}.lora_A.weight": first[f"{KEY}.lora_A.weight"]}
    mean = (product(first) + product(common)) / 2
    close(product(fold([first, common], FoldConfig("average"))), mean)
    flipped = {key: -value for key, value in first.items()}  # the same update in other coordinates
    assert fold([first, flipped], FoldConfig("average"))[f"{KEY}.lora_A.weight"].abs().max() == 0
    close(product(fold([first, flipped], FoldConfig("svd"))), product(first))


D = [
    torch.tensor(rows, dtype=torch.float64)
    for rows in ([[4, -1], [0.5, 2]], [[-3, -2], [0.1, 1]], [[2, 5], [-1, -0.2]])
]


@pytest.mark.parametrize(
    ("shares", "wanted"),
    # trimmed to two entries: [[4, 0], [0, 2]], [[-3, -2], [0, 0]], [[2, 5], [0, 0]]
    [([1, 1, 1], [[3, 5], [0, 2]]), ([0.5, 2, 0.5], [[-3, -2], [0, 2]])],
)
def test_ties_by_hand(shares: list[float], wanted: list[list[float]]) -> None:
    states = [{"d": d} for d in D]
    got = ties_update(states, lambda state: state["d"].clone(), 0.5, shares)
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float64))


def test_ties_of_opposite_updates_is_nothing_and_of_equal_ones_themselves() -> None:
    def get(state: dict[str, Tensor]) -> Tensor:
        return state["d"].clone()

    assert ties_update([{"d": D[0]}, {"d": -D[0]}], get, 1.0, [1, 1]).abs().max() == 0
    torch.testing.assert_close(ties_update([{"d": D[0]}, {"d": D[0]}], get, 1.0, [1, 1]), D[0])


def test_ties_of_lora_experts_is_the_low_rank_part_of_the_dense_one() -> None:
    states = [expert(seed) for seed in range(3)]
    dense = ties_update(states, product, 0.3, [1, 1, 1])
    close(product(fold(states, FoldConfig("ties", 0.3))), best(dense, 3))


@pytest.mark.parametrize("shape", [(7, 15), (15, 7), (3, 9), (9, 3)])
def test_low_rank_factors_are_those_of_the_full_decomposition(shape: tuple[int, int]) -> None:
    update = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    a, b = low_rank_factors(update, 5)
    assert a.shape == (5, shape[1]) and b.shape == (shape[0], 5)
    torch.testing.assert_close(b @ a, best(update, 5))
    torch.testing.assert_close(a.norm(dim=1), b.norm(dim=0))
    zero = low_rank_factors(torch.zeros(shape).double(), 5)
    assert all(torch.isfinite(factor).all() for factor in zero) and (zero[1] @ zero[0]).abs().max() == 0


def test_full_weights_fold_by_average_and_by_ties_on_what_changed() -> None:
    base = {"w": torch.full((2, 2), 10.0)}
    states = [{"w": (base["w"] + d).to(torch.bfloat16)} for d in D]
    averaged = fold(states, FoldConfig("average"), [1, 1, 2])["w"]
    wanted = sum(s["w"].double() * w for s, w in zip(states, (1, 1, 2), strict=True)) / 4
    torch.testing.assert_close(averaged, wanted.to(torch.bfloat16))
    tied = fold(states, FoldConfig("ties", 0.5), base=base)["w"]
    torch.testing.assert_close(tied.double(), torch.tensor([[13, 15], [10, 12]]).double(), rtol=0, atol=0.05)
    with pytest.raises(ValueError, match="backbone's weights"):
        fold(states, FoldConfig("ties"))
    with pytest.raises(ValueError, match=r"weight is \(3, 2\), the experts' \(2, 2\)"):
        fold(states, FoldConfig("ties"), base={"w": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match="full-MLP experts fold by average or ties"):
        fold(states, FoldConfig("svd"))


@pytest.mark.parametrize("method", METHODS)
def test_a_single_expert_is_left_bit_for_bit(bank: ExpertBank, method: str) -> None:
    state = bank.state(1)
    folded = fold([state], FoldConfig(method), [7.0])
    assert list(folded) == list(state) and all(torch.equal(folded[key], state[key]) for key in state)


def test_what_does_not_fold_is_refused() -> None:
    with pytest.raises(ValueError, match="no experts"):
        fold([], FoldConfig())
    with pytest.raises(ValueError, match="different kinds, ranks or layers"):
        fold([expert(0), expert(1, rank=2)], FoldConfig())
    for weights in ([1.0], [1.0, 0.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="positive numbers"):
            fold([expert(0), expert(1)], FoldConfig(), weights)
    with pytest.raises(ValueError, match="merging method"):
        FoldConfig("mean")
    for density in (0.0, 1.5):
        with pytest.raises(ValueError, match="density"):
            FoldConfig("ties", density)


# -- grouping


def test_average_linkage_by_hand() -> None:
    d = np.array([[0, 9, 2, 8], [9, 0, 7, 3], [2, 7, 0, 5], [8, 3, 5, 0.0]])
    grouping = group_tasks((0, 1, 2, 3), d, 1)
    steps = [(join.first, join.second, join.distance) for join in grouping.joins]
    assert steps == [((0,), (2,), 2.0), ((1,), (3,), 3.0), ((0, 2), (1, 3), (9 + 8 + 7 + 5) / 4)]
    assert grouping.groups == ((0, 1, 2, 3),)
    assert group_tasks((0, 1, 2, 3), d, 2).groups == ((0, 2), (1, 3))
    assert group_tasks((0, 1, 2, 3), d, 4).groups == ((0,), (1,), (2,), (3,))


@pytest.mark.parametrize("keep", [0, 5])
def test_keep_is_between_one_and_the_number_of_tasks(keep: int) -> None:
    with pytest.raises(ValueError, match="give 1 to 4"):
        group_tasks((0, 1, 2, 3), np.zeros((4, 4)), keep)


def test_ties_go_to_the_lowest_tasks() -> None:
    d = np.ones((4, 4)) + 1e-13 * np.random.default_rng(0).standard_normal((4, 4))  # equal but for rounding
    assert group_tasks((4, 2, 7, 9), (d + d.T) / 2, 2).groups == ((2, 4, 7), (9,))


def test_groups_are_those_of_the_mean_over_pairs_whatever_the_order_of_the_tasks() -> None:
    tasks = (2, 3, 5, 8, 11, 12)
    points = np.random.default_rng(1).standard_normal((6, 3))
    d = np.linalg.norm(points[:, None] - points[None], axis=2)
    wanted = [{i} for i in range(6)]
    while len(wanted) > 2:  # by definition: the mean over all pairs
        pairs = [(i, j) for i in range(len(wanted)) for j in range(i)]
        means = [np.mean([d[a, b] for a in wanted[i] for b in wanted[j]]) for i, j in pairs]
        i, j = pairs[int(np.argmin(means))]
        wanted[j] |= wanted.pop(i)
    named = {tuple(tasks[i] for i in sorted(group)) for group in wanted}
    for order in list(permutations(range(6)))[::97]:
        chosen = list(order)
        got = group_tasks([tasks[i] for i in chosen], d[np.ix_(chosen, chosen)], 2)
        assert set(got.groups) == named and got.groups == tuple(sorted(got.groups))


def anchors(count: int, *, complete: bool = True) -> list[Anchor]:
    generator = torch.Generator().manual_seed(3)
    made = []
    for task in range(count):
        center = torch.randn(6, generator=generator) * 3
        rows = center + torch.randn(30, 6, generator=generator)
        anchor = Anchor.from_features(task, {"text": rows, "audio": rows[:, :3]})
        made.append(anchor if complete else Anchor(task, None, anchor.means))
    return made


@pytest.mark.parametrize("complete", [True, False])
def test_distances_are_what_the_router_says_of_the_anchors(complete: bool) -> None:
    made = anchors(4, complete=complete)
    tasks, d = anchor_distances(made)
    assert tasks == (0, 1, 2, 3) and np.array_equal(d, d.T) and not d.diagonal().any()
    features = RoutingFeatures.from_samples([dict(made[2].means)])
    scores = Router(made, RouterConfig()).route(features).scores[0].numpy()
    np.testing.assert_allclose(np.delete(d[2], 2), np.delete(1 - scores, 2), atol=1e-12)


def test_distances_do_not_depend_on_the_order_of_the_anchors() -> None:
    made = anchors(4)
    tasks, d = anchor_distances(made)
    again, e = anchor_distances(made[::-1])
    assert again == tasks and np.array_equal(d, e)


def test_anchors_without_a_common_modality_are_far() -> None:
    first, second, third = anchors(3, complete=False)
    second = Anchor(1, None, {"text": second.means["text"]})
    third = Anchor(2, None, {"audio": third.means["audio"]})
    assert anchor_distances([first, second, third])[1][1, 2] == 2.0
