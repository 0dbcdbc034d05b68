"""Running means of batch means, as published."""

import pytest
import torch

from model.moe.published_anchors import PublishedAnchors, stacked_mean


def test_equal_clips_have_the_plain_mean() -> None:
    clips = list(torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(stacked_mean(clips), torch.stack(clips).mean((0, 1)))
    torch.testing.assert_close(stacked_mean(clips, torch.full((5, 2), 9.0)), torch.stack(clips).mean((0, 1)))


def test_the_filler_of_a_shorter_clip_counts() -> None:
    clips = [torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[6.0]])]
    assert stacked_mean(clips, torch.tensor([9.0])).tolist() == [(1 + 2 + 3 + 6 + 9 + 9) / 6]


def test_what_cannot_be_stacked_is_refused() -> None:
    long, short = torch.ones(2, 1), torch.ones(1, 1)
    with pytest.raises(ValueError, match=r"\[2, 1\] cannot be stacked"):
        stacked_mean([long, short])
    with pytest.raises(ValueError, match="at least one clip"):
        stacked_mean([])
    with pytest.raises(ValueError, match="none may be empty"):
        stacked_mean([long, torch.ones(0, 1)], torch.ones(1))


def test_every_batch_weighs_the_same() -> None:
    batches = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
    anchors = PublishedAnchors()
    for batch in batches:
        anchors.update({"video": batch})
    assert anchors.count == 5
    torch.testing.assert_close(anchors.means["video"], batches.mean(0))


def test_batches_are_counted_not_batches_per_modality() -> None:
    anchors = PublishedAnchors()
    anchors.update({"text": torch.tensor([1.0])})
    anchors.update({"text": torch.tensor([2.0]), "audio": torch.tensor([8.0])})
    assert anchors.means["audio"].tolist() == [8.0]  # first seen: as it is
    anchors.update({"audio": torch.tensor([2.0])})
    assert anchors.means["audio"].tolist() == [(2 * 8.0 + 2.0) / 3]
    assert anchors.means["text"].tolist() == [1.5]  # not seen: as it was
    assert anchors.count == 3


def test_a_refused_batch_changes_nothing() -> None:
    anchors = PublishedAnchors()
    first = torch.ones(2)
    anchors.update({"text": first})
    first.zero_()
    for batch, message in (
        ({}, "without any modality"),
        ({"audio": torch.ones(3), "text": torch.ones(3)}, "got shape"),
        ({"audio": torch.tensor([float("nan")])}, "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            anchors.update(batch)
    assert anchors.count == 1 and anchors.means.keys() == {"text"}
    assert anchors.means["text"].tolist() == [1.0, 1.0]
