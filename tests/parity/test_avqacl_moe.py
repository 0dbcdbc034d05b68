"""The spine against the values that the published system computes: media features, prompts, splicing, LM,
experts.

Tolerances are those of the recorded set's README: largest absolute error over the largest recorded absolute
value.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data.prompts import PromptTokenizer, build_prompt
from model.encoders.beats import group_mask
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import Backbone
from model.language_model.splice import IGNORE, PromptBatch, splice

FEATURES = 1e-4  # relative
LOGITS = 5e-4  # absolute
LOSS = 1e-5  # absolute
GRADIENT = 1e-3  # relative
NEAR_TIE = 0.005  # margin under which greedy decoding may go another way


class TrainingBatch(NamedTuple):
    """Prompts of one recorded training batch, its recorded tensors and loss."""

    prompts: PromptBatch
    expected: dict[str, Tensor]
    loss: float


def check(ours: Tensor, recorded: Tensor, tolerance: float = FEATURES) -> None:
    assert ours.shape == recorded.shape
    error = (ours - recorded).abs().max() / recorded.abs().max()
    assert error <= tolerance, f"relative error {error:.2e} over {tolerance:.0e}"


def check_recorded(case: Any, key: str, value: Tensor) -> bool:
    """Compare if `key` was recorded, whole or strided; returns whether it was."""
    pair = case.recorded(key, value)
    if pair is not None:
        check(*pair)
    return pair is not None


def test_prompt_ids(case: Any, backbone: Backbone) -> None:
    prompt = build_prompt(PromptTokenizer(backbone.tokenizer), case.sample.question)
    assert prompt.input_ids.tolist() == case.expected["input_ids"].tolist()


def test_frames(case: Any, backbone: Backbone) -> None:
    for pixels, features in zip(case.pixels, case.visual, strict=True):
        patches = backbone.encoder.vision(pixels)
        check_recorded(case, "pixel_values_frame0", pixels[0])
        check_recorded(case, "pixel_values_frame_means", pixels.mean((2, 3)))
        check_recorded(case, "clip_features", patches)
        check_recorded(case, "mm_projector", backbone.encoder.projector(patches))
        check_recorded(case, "video_tokens", features.tokens)


def test_audio(case: Any, backbone: Backbone) -> None:
    encoder, expected = backbone.encoder, case.expected
    if not case.waveforms:
        assert expected["features_mask"].tolist() == [0]
        return
    chunks = encoder.audio.prepare(case.waveforms)
    owners = [number for number, count in enumerate(chunks.counts, 1) for _ in range(count)]
    if len(chunks.counts) == 1:
        owners = [1] * len(owners)
    assert expected["features_mask"].tolist() == owners
    if "num_audio_samples" in expected:
        assert case.waveforms[0].shape == (int(expected["num_audio_samples"]),)
        tokens = group_mask(chunks.padding, encoder.audio.tokens_per_chunk)
        assert int((~chunks.padding[0]).sum()) == int(expected["num_unmasked_fbank_frames"])
        assert int((~tokens[0]).sum()) == int(expected["num_unmasked_beats_tokens"])
    check_recorded(case, "fbank_rows", chunks.fbank[0])
    if "fbank_tail_minmax" in expected:
        # The recorded rows reach two rows beyond the audio; the tail is what follows.
        rows = expected.get("fbank_rows")
        start = len(rows) if rows is not None else int(expected["num_unmasked_fbank_frames"]) + 2
        tail = chunks.fbank[0, start:]
        check(torch.stack([tail.min(), tail.max()]), expected["fbank_tail_minmax"])
    if case.expected.keys() & {"beats", "beats_stride8"}:
        check_recorded(case, "beats", encoder.audio(chunks)[0])
    check_recorded(case, "audio_tokens", case.audible[0].tokens)


def test_routing_features(case: Any, backbone: Backbone, anchor_lm: AnchorLM) -> None:
    """Position means of the recorded routing features; several media of a kind are averaged over their
    chunks.
    """
    expected = case.expected
    check(anchor_lm.text_feature([expected["input_ids"]])[0], expected["anchor_eval_text"])
    kinds = [m.kind for m in case.sample.media]
    for kind in ("image", "video"):
        assert (f"anchor_eval_{kind}" in expected) == (kind in kinds)
        if kind in kinds:
            assert len(case.visual) == 1
            recorded = expected[f"anchor_eval_{kind}"]
            check(case.visual[0].routing, recorded.mean(0) if recorded.ndim == 2 else recorded)
    assert ("anchor_eval_audio_posmean" in expected) == ("audio" in kinds)
    if "audio" in kinds:
        queries = backbone.encoder.aligner.query_tokens.shape[1]
        chunks = torch.tensor([f.tokens.shape[0] // queries for f in case.audible])
        total = sum(f.routing * n for f, n in zip(case.audible, chunks, strict=True))
        check(total / chunks.sum(), expected["anchor_eval_audio_posmean"])


def test_spliced_embeddings(case: Any, backbone: Backbone) -> None:
    embedding = backbone.llm.get_input_embeddings()
    for side in ("left", "right"):
        check(splice(case.prompt, embedding, side).embeds[0], case.expected["inputs_embeds"])


@torch.no_grad()
def test_logits(case: Any, anchor_lm: AnchorLM, expert_names: dict[str, int]) -> None:
    for expert, number in expert_names.items():
        (logits,) = anchor_lm.logits(case.prompt, [number])
        views = {"last4": logits[-4:], "lse": logits.logsumexp(-1), "full": logits}
        compared = 0
        for view, ours in views.items():
            recorded = case.expected.get(f"logits_{expert}_{view}")
            if recorded is not None:
                assert ours.shape == recorded.shape
                assert (ours - recorded).abs().max() <= LOGITS, (expert, view)
                compared += 1
        assert compared >= 2, f"nothing recorded for {expert}"
        best = logits.topk(2, -1).values
        clear = best[:, 0] - best[:, 1] > 2 * LOGITS
        recorded = case.expected[f"logits_{expert}_argmax"].long()
        assert torch.equal(logits.argmax(-1)[clear], recorded[clear])


@torch.no_grad()
def test_greedy_answers(
    case: Any, folder: Path, backbone: Backbone, anchor_lm: AnchorLM, expert_names: dict[str, int]
) -> None:
    recorded = json.loads((folder / "expected" / "generation.json").read_text())[case.name]
    assert recorded.keys() == expert_names.keys()
    eos = backbone.tokenizer.eos_token_id
    for expert, number in expert_names.items():
        ids, margins = recorded[expert]["ids"], recorded[expert]["margins"]
        ours = anchor_lm.generate(case.prompt, [number], len(ids), eos)[0]
        sure = next((step for step, margin in enumerate(margins) if margin < NEAR_TIE), len(ids))
        assert ours[:sure] == [i for i in ids[:sure] if i != eos], expert


@torch.no_grad()
def test_mixed_experts_in_one_batch(
    cases: dict[str, Any], anchor_lm: AnchorLM, expert_names: dict[str, int]
) -> None:
    """All samples with all experts as one padded batch give the recorded logits."""
    pairs = [(case, expert) for case in cases.values() for expert in expert_names]
    prompts = [case.prompt for case, _ in pairs]
    batch = PromptBatch([p.input_ids[0] for p in prompts], [p.media[0] for p in prompts])
    rows = anchor_lm.logits(batch, [expert_names[expert] for _, expert in pairs])
    for (case, expert), logits in zip(pairs, rows, strict=True):
        error = (logits[-4:] - case.expected[f"logits_{expert}_last4"]).abs().max()
        assert error <= LOGITS, (case.name, expert)


@pytest.fixture(scope="module")
def training_batches(folder: Path, cases: dict[str, Any], backbone: Backbone) -> list[TrainingBatch]:
    """The recorded training batches, with our prompts and media."""
    tokenizer = PromptTokenizer(backbone.tokenizer)
    recorded = json.loads((folder / "expected" / "training.json").read_text())
    batches = []
    for number, pair in enumerate(recorded["pairs"]):
        chosen = [cases[f"sample_{i}"] for i in pair]
        prompts = [build_prompt(tokenizer, case.sample.question, case.sample.answer) for case in chosen]
        labels = [p.labels for p in prompts if p.labels is not None]
        batch = PromptBatch([p.input_ids for p in prompts], [case.prompt.media[0] for case in chosen], labels)
        expected = load_file(folder / "expected" / f"train_batch_{number}.safetensors")
        batches.append(TrainingBatch(batch, expected, recorded["loss"][number]))
    return batches


def test_training_ids_labels_and_masks(training_batches: list[TrainingBatch], backbone: Backbone) -> None:
    for prompts, expected, _ in training_batches:
        assert prompts.labels is not None
        pad = backbone.config["pad_token_id"]
        ids = pad_sequence(list(prompts.input_ids), batch_first=True, padding_value=pad)
        labels = pad_sequence(list(prompts.labels), batch_first=True, padding_value=IGNORE)
        assert torch.equal(ids, expected["input_ids"])
        assert torch.equal(labels, expected["labels"])
        spliced = splice(prompts, backbone.llm.get_input_embeddings(), "right")
        assert spliced.labels is not None
        assert torch.equal(spliced.labels, expected["spliced_labels"])
        assert torch.equal(spliced.mask, expected["spliced_attention_mask"].bool())
        if "inputs_embeds" in expected:
            shown = spliced.mask[..., None]  # what stands at padding does not matter
            check(spliced.embeds * shown, expected["inputs_embeds"] * shown)


def test_first_training_loss_and_gradients(
    training_batches: list[TrainingBatch], anchor_lm: AnchorLM
) -> None:
    """The batch before any optimiser step, with a full-MLP expert that starts as the backbone's own
    weights.
    """
    prompts, expected, recorded_loss = training_batches[0]
    bank = anchor_lm.bank
    assert bank is not None
    fresh = max(bank.task_ids) + 1
    bank.add(fresh)
    bank.train_only(fresh)
    try:
        loss = anchor_lm(prompts, [fresh] * len(prompts)).mean
        assert abs(loss.item() - recorded_loss) <= LOSS
        loss.backward()
        gradients = {key: p.grad for key, p in bank.parameters_of(fresh).items()}
        compared = 0
        for key in expected:
            if key.startswith("grad."):
                gradient = gradients[key.removeprefix("grad.")]
                assert gradient is not None
                check(gradient, expected[key], GRADIENT)
                compared += 1
        assert compared
    finally:
        bank.remove(fresh)
