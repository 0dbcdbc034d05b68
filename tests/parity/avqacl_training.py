"""Training: batches, losses, gradients, optimiser steps and the anchors that grow beside them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from model.encoders.placeholders import (
    FILLER_CHUNK,
    NO_AUDIO,
    NO_VIDEO_FRAMES,
    black_frame,
    constant_chunk,
)
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import Backbone
from model.language_model.splice import IGNORE, PromptBatch, Spliced, splice
from model.moe.experts import ExpertBank, ExpertConfig
from model.moe.published_anchors import PublishedAnchors, batch_feature
from tests.parity.recorded import GRADIENTS, HALF, LOSSES, UPDATES, Notes, Recorded, RecordedSet

EDGE_BATCHES = ("long_and_short", "audio_only_and_video_only", "video_only_twice")  # in training order
TRACKER = "tracker_after_three"
EXPERT = 0
OPTIMISER = {"lr": 4e-5, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}


def training_batch(cases: Sequence[Any]) -> PromptBatch:
    prompts = [case.closed_prompt for case in cases]
    labels = [prompt.labels for prompt in prompts if prompt.labels is not None]
    return PromptBatch([p.input_ids for p in prompts], [case.media_tokens for case in cases], labels)


def training_pairs(recorded: RecordedSet, cases: dict[str, Any]) -> list[list[Any]]:
    return [[cases[f"sample_{i}"] for i in pair] for pair in recorded.file("training.json")["pairs"]]


def padded_ids(cases: Sequence[Any]) -> Tensor:
    """Ids as published, padded on the right."""
    pad = cases[0].backbone.config["pad_token_id"]
    return pad_sequence([c.closed_prompt.input_ids for c in cases], batch_first=True, padding_value=pad)


def check_collation(cases: Sequence[Any], expected: Recorded, prefix: str = "") -> None:
    """Ids, labels, masks and embeddings of a batch, as far as they are recorded."""
    batch = training_batch(cases)
    assert batch.labels is not None
    assert expected.compare_exactly(f"{prefix}input_ids", padded_ids(cases))
    labels = pad_sequence(list(batch.labels), batch_first=True, padding_value=IGNORE)
    assert expected.compare_exactly(f"{prefix}labels", labels)
    shown = pad_sequence([torch.ones_like(ids) for ids in batch.input_ids], batch_first=True)
    expected.compare_exactly(f"{prefix}attention_mask", shown)
    owners = pad_sequence([torch.tensor(case.chunk_owners) for case in cases], batch_first=True)
    expected.compare_exactly(f"{prefix}features_mask", owners)
    spliced = spliced_as_published(batch, cases[0].backbone)
    assert spliced.labels is not None
    expected.compare_exactly(f"{prefix}spliced_labels", spliced.labels)
    expected.compare_exactly(f"{prefix}spliced_attention_mask", spliced.mask)
    expected.compare(f"{prefix}inputs_embeds", spliced.embeds)


@torch.no_grad()
def spliced_as_published(batch: PromptBatch, backbone: Backbone) -> Spliced:
    """Our spliced batch with what the published code leaves at padding, which nothing looks at.

    It pads the ids before the media go in, so the id of the padding has its embedding there; ours is zero.
    """
    embedding = backbone.llm.get_input_embeddings()
    spliced = splice(batch, embedding, "right")
    counts = [len(ids) for ids in batch.input_ids]
    lengths = [real + max(counts) - count for real, count in zip(batch.lengths, counts, strict=True)]
    wider = max(lengths) - spliced.embeds.shape[1]
    embeds = F.pad(spliced.embeds, (0, 0, 0, wider))
    for row, (real, length) in enumerate(zip(batch.lengths, lengths, strict=True)):
        embeds[row, real:length] = embedding.weight[backbone.config["pad_token_id"]]
    assert spliced.labels is not None
    mask, labels = F.pad(spliced.mask, (0, wider)), F.pad(spliced.labels, (0, wider), value=IGNORE)
    return Spliced(embeds, mask, F.pad(spliced.positions, (0, wider)), labels)


@torch.no_grad()
def batch_features(cases: Sequence[Any]) -> dict[str, Tensor] | None:
    """Routing features of a training batch as published; None where its clips cannot be stacked."""
    backbone = cases[0].backbone
    encoder, ids = backbone.encoder, padded_ids(cases)
    found: dict[str, Tensor | None] = {"text": AnchorLM(backbone.llm).text_feature([ids.flatten()])[0]}
    black = black_frame(encoder)
    try:
        for kind, frames in (("video", NO_VIDEO_FRAMES), ("image", 1)):
            found[kind] = batch_feature([c.patches.get(kind) for c in cases], black.expand(frames, -1, -1))
    except ValueError:
        return None
    sounds = [case.sounds if case.waveforms else None for case in cases]
    silent, filler = (constant_chunk(encoder, value) for value in (NO_AUDIO, FILLER_CHUNK))
    found["audio"] = batch_feature(sounds, silent[None], filler)
    return {kind: feature for kind, feature in found.items() if feature is not None}


def check_features(features: dict[str, Tensor], expected: Recorded, prefix: str) -> None:
    """Every modality has its recorded feature, and no other has one."""
    for kind in ("text", "image", "video", "audio"):
        assert expected.has(f"{prefix}{kind}") == (kind in features), f"{prefix}{kind}"
        if kind in features:
            expected.compare(f"{prefix}{kind}", features[kind])


def test_training_batches(recorded: RecordedSet, cases: dict[str, Any]) -> None:
    pairs = training_pairs(recorded, cases)
    files = [name for name in recorded.names("*") if re.fullmatch(r"train_batch_\d+\.safetensors", name)]
    assert len(files) == len(pairs)
    for number, pair in enumerate(pairs):
        expected = recorded.file(f"train_batch_{number}.safetensors")
        check_collation(pair, expected)
        features = batch_features(pair)
        assert features is not None
        check_features(features, expected, "anchor_train_")


def test_half_precision_features(recorded: RecordedSet, cases: dict[str, Any], notes: Notes) -> None:
    """What the published script computes with its towers in float16; ours stay in float32 (see HALF)."""
    pairs = training_pairs(recorded, cases)
    for file in recorded.names("train_batch_*_clip_fp16.safetensors"):
        expected = recorded.file(file)
        features = batch_features(pairs[int(file.split("_")[2])])
        assert features is not None
        assert expected.compare("anchor_train_video_clip_fp16", features["video"], HALF)


def test_published_anchors_after_all_batches(recorded: RecordedSet, cases: dict[str, Any]) -> None:
    anchors = PublishedAnchors()
    pairs = training_pairs(recorded, cases)
    for pair in pairs:
        features = batch_features(pair)
        assert features is not None
        anchors.update(features)
    assert anchors.count == recorded.file("training.json")["tracker_sample_count"]
    check_features(anchors.means, recorded.file(f"anchor_tracker_after_{len(pairs)}.safetensors"), prefix="")


def edge_batch(recorded: Recorded, name: str, cases: dict[str, Any]) -> list[Any]:
    """The samples of a recorded batch, found by their ids and their number of chunks."""
    ids, owners = recorded[f"{name}.input_ids"], recorded[f"{name}.features_mask"]
    members = []
    for row, chunks in zip(ids, owners.tolist(), strict=True):
        found = [
            case
            for case in reversed(cases.values())  # edge samples first
            if torch.equal(row[: len(case.closed_prompt.input_ids)], case.closed_prompt.input_ids)
            and chunks == case.chunk_owners + [0] * (len(chunks) - len(case.chunk_owners))
        ]
        assert found, f"{name}: no sample has the recorded ids {row.tolist()} and chunks {chunks}"
        members.append(found[0])
    return members


def test_edge_batches(
    recorded: RecordedSet, cases: dict[str, Any], anchor_lm: AnchorLM, notes: Notes
) -> None:
    """A filler chunk; a batch that the published code cannot stack; a modality that is missing in one."""
    expected = recorded.file("train_edge.safetensors")
    assert {key.split(".")[0] for key in expected} == {*EDGE_BATCHES, TRACKER}
    anchors = PublishedAnchors()
    for name in EDGE_BATCHES:
        members = edge_batch(expected, name, cases)
        check_collation(members, expected, f"{name}.")
        features = batch_features(members)
        if features is not None:
            check_features(features, expected, f"{name}.anchor_")
            anchors.update(features)
        else:
            assert not any(key.startswith((f"{name}.anchor_", f"{name}.loss")) for key in expected)
        if f"{name}.loss" in expected:
            with torch.no_grad():
                loss = anchor_lm(training_batch(members), [-1] * len(members)).mean
            notes.close(loss[None], expected[f"{name}.loss"], LOSSES, name)
    check_features(anchors.means, expected, f"{TRACKER}.")


class Learning:
    """A full-MLP expert that starts as the backbone's own weights, and its optimiser.

    The published freeze leaves the output embedding trainable, so here it learns too.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.bank = ExpertBank(backbone.llm, ExpertConfig(kind="mlp"), backbone.identity)
        self.bank.add(EXPERT)
        self.head = backbone.llm.get_output_embeddings().weight
        self.before, self.head_before = self.bank.state(EXPERT), self.head.detach().clone()
        self.bank.train_only(EXPERT)
        parameters = self.bank.parameters_of(EXPERT)
        self.parameters = {**parameters, "lm_head.weight": self.head.requires_grad_(True)}
        self.optimiser = torch.optim.AdamW(self.parameters.values(), **OPTIMISER)
        self.model = AnchorLM(backbone.llm, self.bank)

    def loss(self, pair: Sequence[Any]) -> Tensor:
        """Of a batch; its gradients are in the parameters afterwards."""
        self.optimiser.zero_grad()
        loss = self.model(training_batch(pair), [EXPERT] * len(pair)).mean
        loss.backward()
        return loss.detach()

    def moved(self) -> dict[str, Tensor]:
        """What the steps have done to the expert, by tensor."""
        return {key: now - self.before[key] for key, now in self.bank.state(EXPERT).items()}


def exact_moves(backbone: Backbone, pairs: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
    """The same steps in float64."""
    backbone.llm.double()
    learning = Learning(backbone)
    for pair in pairs:
        learning.loss(pair)
        learning.optimiser.step()
    return learning.moved()


def test_training_steps(
    recorded: RecordedSet,
    cases: dict[str, Any],
    make_backbone: Callable[[], Backbone],
    notes: Notes,
) -> None:
    """Losses, gradients, and what steps do to the weights.

    Adam divides by the size of a gradient, so where that is next to nothing its rounding is felt. What the
    recorded values are away from float64 there is added to the tolerance, at most the tolerance once more.
    """
    learning, expected = Learning(make_backbone()), recorded.file("training.json")
    norms, losses = expected["grad_norms"], expected["loss"]
    pairs = training_pairs(recorded, cases)
    assert len(pairs) == len(losses) >= len(norms) > 0
    for number, pair in enumerate(pairs):
        loss = learning.loss(pair)
        notes.close(loss, torch.tensor(losses[number]), LOSSES, f"batch {number}")
        gradients = {key: p.grad for key, p in learning.parameters.items() if p.grad is not None}
        batch = recorded.file(f"train_batch_{number}.safetensors")
        for key, gradient in gradients.items():
            batch.compare(f"grad.{key}", gradient, GRADIENTS)
        if number < len(norms):
            assert norms[number].keys() == gradients.keys()
            for key, norm in norms[number].items():
                notes.close(gradients[key].norm(), torch.tensor(norm), GRADIENTS, f"batch {number}, {key}")
            learning.optimiser.step()
    after = recorded.file(f"expert_after_{len(norms)}_steps.safetensors")
    ours, exact = learning.moved(), exact_moves(make_backbone(), pairs[: len(norms)])
    assert ours.keys() == {key.removesuffix("_stride8") for key in after}
    for key, start in learning.before.items():
        for name, moved, theirs in after.views(key, ours[key]):
            rows = slice(None, None, 8) if name.endswith("_stride8") else slice(None)
            theirs = (theirs - start[rows]).double()
            largest = UPDATES.bound * theirs.abs().max()
            excused = (theirs - exact[key][rows]).abs().clamp(max=largest)
            apart = moved.double() - theirs
            notes.close(apart.sign() * (apart.abs() - excused).clamp_min(0) + theirs, theirs, UPDATES, name)
            assert apart.norm() <= UPDATES.bound * theirs.norm(), name
    head = (learning.head.detach() - learning.head_before).norm()
    theirs = torch.tensor(expected[f"lm_head_delta_norm_after_{len(norms)}_steps"])
    notes.close(head, theirs, UPDATES, "lm_head")
