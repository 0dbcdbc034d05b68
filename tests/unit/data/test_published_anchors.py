"""The published running mean over training batches, from stored features."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from data import published_anchors
from data.published_anchors import published_anchor
from data.samples import Media, Sample
from model.encoders.features import MediaFeatures

QUERIES, WIDTH = 2, 3
BLACK, SILENT, FILLER = 50.0, 60.0, 70.0
PAD = 100


class Inputs:
    """File `N_C.x` has the value N and, if it is a sound, C chunks; a question is its ids, one per letter."""

    base_identity = "base"
    tokenizer = SimpleNamespace(pad_token_id=PAD)
    encoder = SimpleNamespace(aligner=SimpleNamespace(query_tokens=torch.zeros(1, QUERIES, WIDTH)))

    def __init__(self) -> None:
        self.store = SimpleNamespace(num_frames=8, get=self.get)

    def get(self, media: Media) -> MediaFeatures:
        value, chunks = (int(part) for part in media.paths[0].stem.split("_"))
        return MediaFeatures(torch.zeros(chunks * QUERIES, WIDTH), torch.full((WIDTH,), float(value)))

    def prompt(self, sample: Sample, *, with_answer: bool) -> Any:
        assert with_answer
        ids = [-400, *(ord(letter) - ord("0") for letter in sample.question + sample.answer)]
        return SimpleNamespace(input_ids=torch.tensor(ids))

    def mean_embedding(self, ids: Tensor) -> Tensor:
        return ids[ids >= 0].double().mean()[None].float()


@pytest.fixture(autouse=True)
def towers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_anchors, "black_frame", lambda _: torch.full((4, WIDTH), BLACK))
    values = {published_anchors.NO_AUDIO: SILENT, published_anchors.FILLER_CHUNK: FILLER}
    monkeypatch.setattr(
        published_anchors, "constant_chunk", lambda _, value: torch.full((5, WIDTH), values[value])
    )


def sample(question: str, *media: tuple[str, str], frames: int = 8, answer: str = "1") -> Sample:
    found = tuple(
        Media(
            kind, tuple([Path(f"{name}.png")] * frames) if kind == "video" else (Path(f"{name}.wav"),), True
        )  # type: ignore[arg-type]
        for kind, name in media
    )
    return Sample("q", 0, Path("s.json"), question, answer, found, {})


def anchor(samples: list[Sample], batches: list[list[int]]) -> dict[str, float]:
    made = published_anchor(Inputs(), 0, samples, batches)  # type: ignore[arg-type]
    assert not made.complete and made.base_identity == "base"
    assert all((mean == mean[0]).all() for mean in made.means.values())
    return {name: float(mean[0]) for name, mean in made.means.items()}


def test_batches_weigh_the_same_and_padding_and_answers_count() -> None:
    samples = [sample("12", ("video", "1_1")), sample("3", ("video", "2_1")), sample("5", ("video", "6_1"))]
    found = anchor(samples, [[0, 1], [2]])
    assert found["video"] == ((1 + 2) / 2 + 6) / 2
    first = (1 + 2 + 1 + 3 + 1 + PAD) / 6  # two prompts with answers, the shorter padded by one
    assert found["text"] == pytest.approx((first + (5 + 1) / 2) / 2)
    assert "audio" not in found


def test_a_shorter_sound_is_filled_up_and_a_missing_one_replaced() -> None:
    samples = [sample("1", ("audio", "3_2")), sample("1", ("audio", "9_1")), sample("1", ("video", "4_1"))]
    found = anchor(samples, [[0, 1, 2]])
    assert found["audio"] == pytest.approx((3 + 3 + 9 + FILLER + SILENT + FILLER) / 6)
    assert found["video"] == pytest.approx((4 + BLACK + BLACK) / 3)


def test_a_batch_that_cannot_be_stacked_is_left_out() -> None:
    samples = [sample("1", ("video", "1_1")), sample("1", ("video", "2_1"), frames=4)]
    assert anchor(samples, [[0, 1], [0]])["video"] == 1.0
    with pytest.raises(ValueError, match="task 0: in every batch the videos have unequal numbers of frames"):
        anchor(samples, [[0, 1]])


def test_several_media_of_one_kind_are_counted_by_frames_and_chunks() -> None:
    found = anchor([sample("1", ("audio", "3_2"), ("audio", "9_1"))], [[0]])
    assert found["audio"] == pytest.approx((3 + 3 + 9) / 3)
