"""Segments and masks of the language stage."""

import torch

from scripts.make_tiny_backbone.language import IGNORE, block_mask, build_segments
from scripts.make_tiny_backbone.questions import HEARD, Question


class Words:
    """A template that turns a question into as many tokens as it has words."""

    def question(self, words: str) -> list[int]:
        return [5] * len(words.split())


def test_segments_tell_answer_and_end() -> None:
    asked = [[Question("a b c", [7, 8], HEARD, 4), Question("a", [9])]]
    segments = build_segments(Words(), asked)  # type: ignore[arg-type]
    assert segments.length == 5
    assert segments.ids.tolist() == [[5, 5, 5, 7, 8, 5, 9, 0, 0, 0]]
    assert segments.labels.tolist() == [[IGNORE, IGNORE, 7, 8, 2, 9, 2, IGNORE, IGNORE, IGNORE]]
    assert segments.starts.tolist() == [[2, 5]]
    assert segments.targets.tolist() == [[4, -1]]


def test_segments_see_the_prefix_and_themselves_only() -> None:
    mask, positions = block_mask(2, 2, 2)
    open_ = (mask[0, 0] == 0).long()
    assert open_.tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 1, 1],
    ]
    assert torch.equal(positions, torch.tensor([[0, 1, 2, 3, 2, 3]]))
