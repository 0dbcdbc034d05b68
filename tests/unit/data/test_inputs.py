from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data.inputs import Inputs
from data.samples import Media, Sample
from model.encoders.features import MediaFeatures
from model.language_model.loading import Loading
from model.language_model.splice import AUDIO_ID, IGNORE, IMAGE_ID, VIDEO_ID
from model.moe.far import held_out_distances

WIDTH = 6


class Letters:
    """One id per character; </s> is 2."""

    bos_token_id, eos_token_id, eos_token, pad_token_id = 1, 2, "\x02", 0

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [1] * add_special_tokens + [ord(letter) for letter in text]


class Store:
    """Features made from the number in the file's name: file 3 has 3 tokens, all of value 3."""

    num_frames = 8

    def get(self, media: Media) -> MediaFeatures:
        number = int(media.paths[0].stem)
        return MediaFeatures(torch.full((number, WIDTH), float(number)), torch.full((4,), float(number)))

    def key(self, media: Media) -> str:
        return media.paths[0].stem


def medium(kind: Any, number: int, tagged: bool = True) -> Media:
    return Media(kind, (Path(f"{number}.x"),), tagged)


def sample(question: str, *media: Media, answer: str = "yes") -> Sample:
    return Sample("q", 0, Path("s.json"), question, answer, media, {})


def inputs(text_feature: str = "question") -> Inputs:
    embedding = torch.nn.Embedding(256, WIDTH)
    with torch.no_grad():
        embedding.weight.copy_(torch.arange(256.0)[:, None].expand(256, WIDTH))
    llm = SimpleNamespace(get_input_embeddings=lambda: embedding)
    backbone: Any = SimpleNamespace(
        tokenizer=Letters(),
        llm=llm,
        identity="base",
        encoder=None,
        loading=Loading(),
        paths=SimpleNamespace(vision=None),
    )
    return Inputs(backbone, Store(), text_feature=text_feature)  # type: ignore[arg-type]


MIXED = sample(
    "<audio>\n<video>\nab",
    medium("audio", 3),
    medium("video", 2),
    medium("audio", 5, False),
    medium("image", 4, False),
)
TEXT = sample("<image>\nb", medium("image", 7))


def test_media_stand_in_tag_order_and_untagged_ones_are_not_spliced() -> None:
    batch = inputs().batch([MIXED, TEXT], with_answers=True)
    assert [i for i in batch.input_ids[0].tolist() if i < 0] == [AUDIO_ID, VIDEO_ID]
    assert [i for i in batch.input_ids[1].tolist() if i < 0] == [IMAGE_ID]
    assert [[len(tokens) for tokens in row] for row in batch.media] == [[3, 2], [7]]
    assert batch.labels is not None
    learned = "".join(chr(label) for label in batch.labels[0].tolist() if label != IGNORE)
    assert learned == " yes\x02"
    assert inputs().batch([MIXED], with_answers=False).labels is None


def test_without_media() -> None:
    blind = inputs().batch([MIXED], with_answers=False, without_media=True)
    assert blind.media[0] == []
    text = "".join(map(chr, blind.input_ids[0].tolist()))
    assert "USER: ab ASSISTANT:" in text
    features = inputs().routing([MIXED], without_media=True)
    assert features.values.keys() == {"text"}


def test_a_mixed_batch_leaves_media_out_row_by_row() -> None:
    batch = inputs().mixed_batch([(MIXED, True), (MIXED, False)])
    assert [len(row) for row in batch.media] == [0, 2]


def test_lengths() -> None:
    made = inputs()
    batch = made.batch([MIXED, TEXT], with_answers=True)
    assert [made.prompt_length(s) for s in (MIXED, TEXT)] == batch.lengths
    blind = made.batch([MIXED], with_answers=True, without_media=True)
    assert made.prompt_length(MIXED, without_media=True) == blind.lengths[0]
    assert made.answer_length(MIXED) == len(" yes") + 1


def test_several_sounds_count_by_their_chunks_and_absent_modalities_are_marked() -> None:
    features = inputs().routing([MIXED, TEXT])
    assert features.values["audio"][0].tolist() == [(3 * 3 + 5 * 5) / 8] * 4  # untagged media are routed on
    assert features.values["image"].tolist() == [[4.0] * 4, [7.0] * 4]
    assert features.present["video"].tolist() == [True, False]
    assert features.present["text"].tolist() == [True, True]


def test_text_features() -> None:
    question = inputs().routing([MIXED]).values["text"]
    assert question.tolist() == [[(ord("a") + ord("b")) / 2] * WIDTH]
    made = inputs("prompt")
    prompt = made.routing([MIXED]).values["text"][0, 0].item()
    ids = [i for i in made.batch([MIXED], with_answers=False).input_ids[0].tolist() if i >= 0]
    assert prompt == pytest.approx(sum(ids) / len(ids), rel=1e-6)
    with pytest.raises(
        ValueError, match="text_feature: got 'bag', expected question, prompt, hidden:L, clip"
    ):
        inputs("bag")


def test_an_anchor_is_the_mean_of_the_routing_features() -> None:
    made = inputs()
    anchor, features = made.anchor(2, [MIXED, TEXT]), made.routing([MIXED, TEXT])
    assert (anchor.task_id, anchor.base_identity) == (2, "base")
    assert torch.allclose(anchor.means["text"], features.values["text"].mean(0).double())
    assert torch.allclose(anchor.means["video"], features.values["video"][0].double())


def test_held_out_distances_leave_out_whole_clips() -> None:
    """Two clips of three questions each: two folds."""
    made = inputs()
    asked = [
        sample(f"<video>\n{text}", medium("video", clip)) for clip in (2, 3) for text in ("a", "bc", "dh")
    ]
    stats = made.anchor(0, asked).stats["text"]
    x = made.routing(asked).values["text"].double()
    assert torch.equal(stats.held_out, held_out_distances(x, ["2"] * 3 + ["3"] * 3))
    assert not torch.allclose(stats.held_out, held_out_distances(x))
    one_clip = made.anchor(0, asked[:3]).stats["text"]
    assert one_clip.held_out is not None and len(one_clip.held_out) == 0


def test_keys_follow_question_and_tagged_media() -> None:
    made = inputs()
    other_clip = sample(MIXED.question, medium("audio", 4), medium("video", 2))
    other_answer = sample(MIXED.question, medium("audio", 3), medium("video", 2), answer="no")
    assert made.sample_key(MIXED) == made.sample_key(other_answer)
    assert made.sample_key(MIXED) != made.sample_key(other_clip)
    assert made.sample_key(MIXED) != made.sample_key(MIXED, without_media=True)
    assert made.sample_key(MIXED, without_media=True) == made.sample_key(other_clip, without_media=True)
    assert made.media_digest([MIXED]) != made.media_digest([other_answer])  # anchors use untagged media too
    assert made.media_digest([MIXED, TEXT]) != made.media_digest([TEXT, MIXED])
