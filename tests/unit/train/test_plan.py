"""The order of questions: every sample once per epoch, the same steps for any number of processes."""

from hypothesis import given
from hypothesis import strategies as st

from train.plan import count_steps, epoch_steps, micro_batches


@given(st.lists(st.integers(1, 50), min_size=1, max_size=90), st.integers(1, 9), st.integers(0, 5))
def test_every_sample_occurs_once_per_epoch(lengths: list[int], step_size: int, epoch: int) -> None:
    steps = epoch_steps(lengths, step_size, seed=3, epoch=epoch)
    assert sorted(index for step in steps for index in step) == list(range(len(lengths)))
    assert len(steps) == count_steps(len(lengths), step_size, 1)
    assert all(1 <= len(step) <= step_size for step in steps)


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 4))
def test_processes_share_a_step_without_gap_or_overlap(samples: int, size: int, world: int) -> None:
    step = list(range(samples))
    parts = [micro_batches(step, size, rank, world) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1, "every process must take part in every round"
    assert sorted(index for part in parts for piece in part for index in piece) == step


def test_epochs_and_seeds_differ_and_repeat() -> None:
    lengths = list(range(40))
    first = epoch_steps(lengths, 4, seed=0, epoch=0)
    assert first == epoch_steps(lengths, 4, seed=0, epoch=0)
    assert first != epoch_steps(lengths, 4, seed=0, epoch=1)
    assert first != epoch_steps(lengths, 4, seed=1, epoch=0)


def test_like_lengths_share_a_step() -> None:
    lengths = [1, 100] * 32
    for step in epoch_steps(lengths, 8, seed=0, epoch=0):
        assert len({lengths[index] for index in step}) == 1
