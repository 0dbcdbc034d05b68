"""Splicing of media tokens into prompts, padding, positions and labels."""

import pytest
import torch
from torch import Tensor, nn

from model.language_model.splice import AUDIO_ID, IGNORE, IMAGE_ID, VIDEO_ID, PromptBatch, splice

D = 4


@pytest.fixture(scope="module")
def embedding() -> nn.Embedding:
    """Token i is embedded as (i, i, i, i)."""
    return nn.Embedding.from_pretrained(torch.arange(50.0)[:, None].expand(50, D).clone())


def medium(value: float, tokens: int) -> Tensor:
    return torch.full((tokens, D), value)


def ids(*values: int) -> Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize(
    ("prompt", "media", "expected"),
    [
        (ids(1, 2, 3), [], [1, 2, 3]),
        (ids(1, VIDEO_ID, 2, AUDIO_ID, 3), [medium(-1, 2), medium(-2, 3)], [1, -1, -1, 2, -2, -2, -2, 3]),
        (ids(1, AUDIO_ID, 2, VIDEO_ID, 3), [medium(-2, 3), medium(-1, 2)], [1, -2, -2, -2, 2, -1, -1, 3]),
        (ids(IMAGE_ID, 5), [medium(-3, 1)], [-3, 5]),
        (ids(5, AUDIO_ID, AUDIO_ID), [medium(-2, 1), medium(-4, 2)], [5, -2, -4, -4]),
        (ids(VIDEO_ID), [medium(-1, 2)], [-1, -1]),
    ],
)
def test_media_stand_where_their_tag_was(
    embedding: nn.Embedding, prompt: Tensor, media: list[Tensor], expected: list[int]
) -> None:
    batch = PromptBatch([prompt], [media])
    for side in ("left", "right"):
        spliced = splice(batch, embedding, side)
        assert spliced.embeds[0, :, 0].tolist() == expected
        assert torch.equal(spliced.embeds[0], spliced.embeds[0, :, :1].expand(-1, D))
        assert spliced.mask.all()
        assert spliced.positions[0].tolist() == list(range(len(expected)))
        assert spliced.labels is None
    assert batch.lengths == [len(expected)]


def test_padding_on_either_side(embedding: nn.Embedding) -> None:
    prompts = [ids(1, VIDEO_ID, 2), ids(7, 8)]
    labels = [ids(IGNORE, IGNORE, 2), ids(IGNORE, 8)]
    batch = PromptBatch(prompts, [[medium(-1, 2)], []], labels)
    right, left = splice(batch, embedding, "right"), splice(batch, embedding, "left")
    assert right.embeds[..., 0].tolist() == [[1, -1, -1, 2], [7, 8, 0, 0]]
    assert right.mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert right.positions[0].tolist() == [0, 1, 2, 3]
    assert right.positions[1, :2].tolist() == [0, 1]
    assert right.labels is not None
    assert right.labels.tolist() == [[IGNORE, IGNORE, IGNORE, 2], [IGNORE, 8, IGNORE, IGNORE]]
    assert left.embeds[..., 0].tolist() == [[1, -1, -1, 2], [0, 0, 7, 8]]
    assert left.mask.tolist() == [[True] * 4, [False, False, True, True]]
    assert left.positions.tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    assert left.labels is not None
    assert left.labels.tolist() == [[IGNORE, IGNORE, IGNORE, 2], [IGNORE, IGNORE, IGNORE, 8]]


def test_media_receive_gradients(embedding: nn.Embedding) -> None:
    """Needed where projectors are trained."""
    tokens = medium(1.0, 2).requires_grad_()
    spliced = splice(PromptBatch([ids(1, VIDEO_ID), ids(1)], [[tokens], []]), embedding, "left")
    (gradient,) = torch.autograd.grad(spliced.embeds.sum(), tokens)
    assert torch.equal(gradient, torch.ones(2, D))


def test_media_are_cast_to_the_lms_dtype(embedding: nn.Embedding) -> None:
    half = nn.Embedding.from_pretrained(embedding.weight.detach().bfloat16())
    assert (
        splice(PromptBatch([ids(1, VIDEO_ID)], [[medium(0.5, 1)]]), half, "right").embeds.dtype
        == torch.bfloat16
    )


@pytest.mark.parametrize(
    ("prompts", "media", "labels", "message"),
    [
        ([], [], None, "batch of 0 prompts"),
        ([ids(1)], [], None, "as many media lists"),
        ([ids(1)], [[]], [], "0 labels"),
        (
            [ids(1), ids(1, VIDEO_ID, AUDIO_ID)],
            [[], [medium(1, 1)]],
            None,
            r"prompt 1: .*\[video, audio\].* 1 media",
        ),
        ([ids(1)], [[medium(1, 1)]], None, r"prompt 0: .*\[\].* 1 media"),
        ([ids(1, -7)], [[medium(1, 1)]], None, "unknown id -7"),
        ([ids(1, 2)], [[]], [ids(1)], "1 labels for 2 ids"),
    ],
)
def test_what_does_not_go_together_is_refused(
    prompts: list[Tensor], media: list[list[Tensor]], labels: list[Tensor] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PromptBatch(prompts, media, labels)


@pytest.mark.parametrize("shape", [(2, D + 1), (D,), (1, 2, D)])
def test_media_of_another_width_are_refused(embedding: nn.Embedding, shape: tuple[int, ...]) -> None:
    batch = PromptBatch([ids(1), ids(VIDEO_ID)], [[], [torch.zeros(shape)]])
    with pytest.raises(ValueError, match=rf"prompt 1: media tokens must be \(T, {D}\)"):
        splice(batch, embedding, "right")
