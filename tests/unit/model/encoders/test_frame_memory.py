"""Frames encoded a moment ago: found by their pixels, in groups that do not depend on what is known."""

from __future__ import annotations

import torch
from torch import Tensor

from model.encoders.frame_memory import GROUP, FrameMemory, group_size


class Tower:
    """Gives two numbers a frame and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, frames: Tensor) -> Tensor:
        self.calls.append([int(frame[0, 0, 0]) for frame in frames])
        return frames[:, :1, 0, :2] * 2.0


def clip(*values: int) -> Tensor:
    return torch.stack([torch.full((3, 2, 2), float(value)) for value in values])


def test_groups_are_as_even_as_possible() -> None:
    assert [group_size(frames) for frames in range(1, 13)] == [1, 2, 3, 4, 3, 3, 4, 4, 3, 4, 4, 4]
    assert all(group_size(frames) <= GROUP for frames in range(1, 100))


def test_each_frame_goes_through_the_tower_once() -> None:
    tower, memory = Tower(), FrameMemory()
    assert memory.get(clip(1, 2, 1, 3, 4, 5, 2, 6), "a", tower)[:, 0, 0].tolist() == [
        2,
        4,
        2,
        6,
        8,
        10,
        4,
        12,
    ]
    assert tower.calls == [[1, 2, 3, 4], [5, 6, 6, 6]]
    memory.get(clip(6, 5, 4, 7), "a", tower)
    assert tower.calls[2:] == [[7, 7, 7, 7]]
    memory.get(clip(1, 2), "a", tower)  # groups of another size may have other bits
    assert tower.calls[3:] == [[1, 2]]


def test_all_is_forgotten_when_the_tower_is_another() -> None:
    tower, memory = Tower(), FrameMemory()
    for made_with in ("a", "b", "b"):
        memory.get(clip(1, 2), made_with, tower)
    assert tower.calls == [[1, 2], [1, 2]]


def test_the_longest_unused_go_first() -> None:
    tower = Tower()
    memory = FrameMemory(bound=3 * 8)  # bytes of three frames
    memory.get(clip(1, 2), "a", tower)
    memory.get(clip(3, 1), "a", tower)
    memory.get(clip(4, 3), "a", tower)  # 2 goes
    assert memory.size == 3 * 8
    memory.get(clip(1, 4), "a", tower)
    assert tower.calls == [[1, 2], [3, 3], [4, 4]]
    memory.get(clip(2, 1), "a", tower)
    assert tower.calls[3:] == [[2, 2]]


def test_a_clip_beyond_the_bound_is_still_whole() -> None:
    tower, memory = Tower(), FrameMemory(bound=0)
    for _ in range(2):
        assert memory.get(clip(1, 2, 1), "a", tower)[:, 0, 0].tolist() == [2, 4, 2]
    assert memory.size == 0 and tower.calls == [[1, 2, 2]] * 2
