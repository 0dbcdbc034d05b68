"""Routing scores: a record worked out by hand, and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.scoring.routing import NO_EXPERT, RoutingRecord, oracle_gap, score_routing

RECORD = RoutingRecord(
    true=[3, 3, 3, 3, 7, 7],
    chosen=[3, 3, 3, 7, 7, NO_EXPERT],
    by_modality={
        "text": [3, 3, 3, 3, 3, 7],
        "video": [None, 7, None, 3, None, None],
        "image": [None] * 6,
    },
)


def test_worked_out_by_hand() -> None:
    scores = score_routing(RECORD, task_ids=[3, 7])
    assert scores.micro == pytest.approx(100 * 4 / 6)
    assert scores.macro == pytest.approx((75 + 50) / 2)
    assert scores.confusion.tolist() == [[3, 1], [0, 1]]
    assert scores.abstained.tolist() == [0, 1]
    assert {name: (alone.accuracy, alone.n) for name, alone in scores.modalities.items()} == {
        "text": (pytest.approx(100 * 5 / 6), 6),
        "video": (50.0, 2),
    }


def test_a_task_without_samples_leaves_the_macro_mean() -> None:
    scores = score_routing(RoutingRecord([0, 0], [0, 1]), task_ids=[0, 1, 2])
    assert scores.macro == scores.micro == 50.0
    assert scores.confusion.shape == (3, 3)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1), st.permutations(range(4)))
def test_counts_and_order(pairs: list[tuple[int, int]], order: list[int]) -> None:
    """Every sample is counted once, and neither accuracy depends on the order of the tasks."""
    record = RoutingRecord([own for own, _ in pairs], [choice for _, choice in pairs])
    plain, mixed = score_routing(record, range(4)), score_routing(record, order)
    assert plain.confusion.sum() + plain.abstained.sum() == len(pairs)
    assert mixed.micro == pytest.approx(plain.micro) and mixed.macro == pytest.approx(plain.macro)
    assert (mixed.confusion == plain.confusion[order][:, order]).all()
    assert 0 <= plain.micro <= 100


def test_oracle_gap() -> None:
    assert oracle_gap(95.0, 94.25) == 0.75
    assert oracle_gap(None, 94.0) is None and oracle_gap(94.0, None) is None


@pytest.mark.parametrize(
    ("true", "chosen", "message"),
    [
        ([], [], "without samples"),
        ([5], [0], r"true has the task ids \[5\]"),
        ([0], [9], "chosen"),
        ([-1], [0], "-1"),
    ],
)
def test_malformed_records(true: list[int], chosen: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_routing(RoutingRecord(true, chosen), task_ids=[0, 1])


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 entries of audio, expected 1"):
        RoutingRecord([0], [0], {"audio": [0, 1]})
