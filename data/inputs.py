"""Samples in, batches and routing features out: everything between the data files and one backbone's tensors.

The same calls serve training, anchors and evaluation, so a feature has one definition.
Legend: N samples, W feature width, D LLM width.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from data.feature_store import FeatureStore
from data.parallel import in_shares
from data.prompts import Prompt, PromptTokenizer, build_prompt
from data.samples import Media, Sample
from data.tags import remove_tags
from data.text_features import TextFeatures, usual_rewordings
from model.encoders.features import MediaFeatures
from model.language_model.backbone import Backbone
from model.language_model.splice import PromptBatch
from model.moe.anchors import Anchor
from model.moe.routing_records import RoutingFeatures


class Inputs:
    """One backbone's view of the data.

    Args:
        backbone: tokenizer, input embeddings and encoder come from it.
        store: encoded media.
        text_feature: what stands for the text, see data/text_features.py.
        rewordings: of each question, that anchors know beside it, see data/rewording.py; None for the usual.
        quiet: no progress bars.

    Raises:
        ValueError: no such text feature, or its weights are missing.
    """

    def __init__(
        self,
        backbone: Backbone,
        store: FeatureStore,
        *,
        text_feature: str = "question",
        rewordings: int | None = 0,
        quiet: bool = False,
    ) -> None:
        self.tokenizer = PromptTokenizer(backbone.tokenizer)
        self.store, self.quiet = store, quiet
        self.rewordings = usual_rewordings(text_feature) if rewordings is None else rewordings
        self.text = TextFeatures(text_feature, backbone.llm, self.tokenizer, backbone.paths.vision)
        self.encoder = backbone.encoder
        self.base_identity = backbone.identity
        self.embedding = backbone.llm.get_input_embeddings()
        self._loading = backbone.loading
        self._prompts: dict[tuple[str, str, bool], Prompt] = {}

    def identity(self) -> dict[str, Any]:
        """What decides the tensors besides backbone and data, for run records."""
        chosen: dict[str, Any] = {"num_frames": self.store.num_frames, "text_feature": self.text.kind}
        if self.rewordings:  # the other value is that of runs before there was a choice
            chosen["rewordings"] = self.rewordings
        return {**chosen, **self._loading.identity()}

    def encode(self, samples: Sequence[Sample], *, rank: int = 0, world: int = 1, jobs: int = 0) -> None:
        """Encode the media that the store does not hold yet.

        Of `world` processes each takes its share; a process alone may fork `jobs` of one thread each.
        """

        def encode(share: int, shares: int) -> None:
            self.store.encode(samples, progress=not self.quiet and share == 0, rank=share, world=shares)

        # Asked before forking, `missing` also leaves the files' hashes in memory for all processes.
        if jobs < 2 or not self.store.missing(samples):
            encode(rank, world)
        else:
            self.encoder.round_parts()
            in_shares(encode, jobs)

    # -- prompts

    def prompt(self, sample: Sample, *, with_answer: bool, without_media: bool = False) -> Prompt:
        """The tokenised prompt of a sample, kept for the next epoch."""
        question = remove_tags(sample.question) if without_media else sample.question
        key = (question, sample.answer, with_answer)
        if key not in self._prompts:
            self._prompts[key] = build_prompt(
                self.tokenizer, question, sample.answer if with_answer else None
            )
        return self._prompts[key]

    def prompt_length(self, sample: Sample, *, without_media: bool = False) -> int:
        """Tokens of the prompt with its media and answer."""
        ids = self.prompt(sample, with_answer=True, without_media=without_media).input_ids
        media = () if without_media else tagged_media(sample)
        return len(ids) - len(media) + sum(len(self.store.get(item).tokens) for item in media)

    def answer_length(self, sample: Sample) -> int:
        """Tokens that the loss is computed on: the answer and the end token."""
        labels = self.prompt(sample, with_answer=True).labels
        assert labels is not None
        return int((labels >= 0).sum())

    def batch(
        self, samples: Sequence[Sample], *, with_answers: bool, without_media: bool = False
    ) -> PromptBatch:
        """Prompts and media tokens of the samples; labels where answers are wanted."""
        return self._collate([(sample, without_media) for sample in samples], with_answers)

    def mixed_batch(self, asked: Sequence[tuple[Sample, bool]]) -> PromptBatch:
        """Prompts to be answered; the second of each pair leaves the media out."""
        return self._collate(asked, with_answers=False)

    def _collate(self, asked: Sequence[tuple[Sample, bool]], with_answers: bool) -> PromptBatch:
        prompts = [
            self.prompt(sample, with_answer=with_answers, without_media=without) for sample, without in asked
        ]
        media = [
            [] if without else [self.store.get(item).tokens for item in tagged_media(sample)]
            for sample, without in asked
        ]
        labels = [prompt.labels for prompt in prompts if prompt.labels is not None]
        early = [prompt.early for prompt in prompts]
        ids = [prompt.input_ids for prompt in prompts]
        return PromptBatch(ids, media, labels if with_answers else None, early)

    # -- routing

    def routing(self, samples: Sequence[Sample], *, without_media: bool = False) -> RoutingFeatures:
        """Routing features of the samples: mean tower outputs and the text feature; of several sounds every
        chunk counts once."""
        rows = [self._routing_row(sample, without_media) for sample in samples]
        return RoutingFeatures.from_samples(rows, {"text": self.text.kind})

    @torch.no_grad()
    def _routing_row(self, sample: Sample, without_media: bool) -> dict[str, Tensor | None]:
        row: dict[str, Tensor | None] = {"text": self._text(sample, without_media)}
        for kind in () if without_media else ("video", "image", "audio"):
            clips = [self.store.get(item) for item in sample.media if item.kind == kind]
            row[kind] = _mean_over_clips(clips) if clips else None
        return row

    def _text(self, sample: Sample, without_media: bool) -> Tensor:
        """The text feature. (W,) float32 on the CPU"""
        if self.text.choice != "prompt":
            return self.text.of_question(sample.question_text)
        ids = self.prompt(sample, with_answer=False, without_media=without_media).input_ids
        return self.text.mean_embedding(ids)

    def mean_embedding(self, ids: Tensor) -> Tensor:
        """Mean input embedding of the ids (L,) that are no media. (D,) float32 on the CPU"""
        return self.text.mean_embedding(ids)

    def anchor(self, task_id: int, samples: Sequence[Sample], *, without_media: bool = False) -> Anchor:
        """The anchor of a task: every sample once, in data order, by the very call that routes."""
        features = self.routing(samples, without_media=without_media)
        asked = ["".join(map(self.store.key, sample.media)) or str(row) for row, sample in enumerate(samples)]
        anchor = Anchor.from_features(
            task_id,
            features.rows(),
            base_identity=self.base_identity,
            feature_kinds=features.kinds,
            clips={
                name: [clip for clip, there in zip(asked, present, strict=True) if there]
                for name, present in features.present.items()
            },
        )
        if not self.rewordings or self.text.choice == "prompt":
            return anchor
        questions = Counter(sample.question_text for sample in samples)
        return anchor.with_rewordings(*self.text.of_rewordings(questions, self.rewordings))

    # -- identity of samples

    def sample_key(self, sample: Sample, *, without_media: bool = False) -> str:
        """Hash of what an answer depends on: the question and the content of its media."""
        keys = [] if without_media else [self.store.key(item) for item in tagged_media(sample)]
        question = remove_tags(sample.question) if without_media else sample.question
        return hashlib.sha256("\n".join([question, *keys]).encode()).hexdigest()

    def media_digest(self, samples: Sequence[Sample]) -> str:
        """Hash over the content of all media of the samples, in order."""
        digest = hashlib.sha256()
        for sample in samples:
            for item in sample.media:
                digest.update(self.store.key(item).encode())
        return digest.hexdigest()


def _mean_over_clips(clips: Sequence[MediaFeatures]) -> Tensor:
    """Mean routing feature, each clip weighed by its tokens: pictures alike, sounds by their chunks. (W,)"""
    if len(clips) == 1:
        return clips[0].routing
    weights = torch.tensor([len(clip.tokens) for clip in clips], dtype=torch.float32)
    vectors = torch.stack([clip.routing for clip in clips])
    return (weights / weights.sum()).to(vectors.device) @ vectors


def tagged_media(sample: Sample) -> tuple[Media, ...]:
    """The media that are spliced into the prompt, in tag order."""
    return tuple(item for item in sample.media if item.tagged)
