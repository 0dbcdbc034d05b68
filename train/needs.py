"""What a study needs, as far as sizes and counts say exactly: disk, host memory, clips to encode, steps.

Nothing is measured and no time is guessed. Letters: P patches of a frame, Q audio queries, D LLM width, W
tower width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from data.samples import Media
from model.encoders.audio import SAMPLE_RATE, AudioTower
from model.encoders.features import MediaEncoder
from model.language_model.backbone import Backbone
from model.moe.anchors import SCATTER_WIDTH, WIDE
from model.moe.experts import ExpertBank
from train.cells import Cell
from train.config import TrainConfig
from train.plan import count_steps

FLOAT32, FLOAT64 = 4, 8  # bytes


@dataclass(frozen=True)
class Needs:
    """Counts and bytes of one study."""

    clips: int  # distinct clips of all splits
    clips_to_encode: int  # of these, not in the feature store
    store_bytes: int  # that the feature store grows by
    experts: int  # expert files to train, over all methods and seeds
    expert_bytes: int  # one expert file
    anchors: int  # anchor files, with statistics
    anchor_bytes: int  # all anchors with their statistics
    checkpoint_bytes: int  # of the task in training: expert and two moments; removed at its end
    steps: int  # optimiser steps, over all methods and seeds
    host_bytes: int  # memory that holds the loaded backbone: LLM in its dtype, encoders in float32

    @property
    def disk_bytes(self) -> int:
        """Largest growth of the output folder and the feature store together."""
        kept = self.experts * self.expert_bytes + self.anchor_bytes
        return self.store_bytes + kept + self.checkpoint_bytes


def study_needs(
    backbone: Backbone,
    config: TrainConfig,
    cells: Sequence[Cell],
    questions: Mapping[Path, int],
    clips: Sequence[Media],
    missing: Sequence[Media],
    sound_seconds: Mapping[Path, float],
    dtype: torch.dtype,
    processes: int = 1,
) -> Needs:
    """Add up a study.

    Args:
        backbone: may be on the meta device.
        cells: experts to train, over all methods and seeds.
        questions: training file -> number of questions.
        clips: all distinct clips. missing: those that the feature store lacks.
        sound_seconds: length of sound files where known; one window otherwise.
        dtype: of the LLM and of stored media tokens.
    """
    bank = ExpertBank(backbone.llm, config.expert)
    numbers = sum(math.prod(shape) for shape in bank.expected_shapes().values())
    stored = dtype.itemsize if config.expert.kind == "mlp" else FLOAT32  # see ExpertBank.save
    bank.detach()
    step_size = config.per_device_batch * config.accumulation * processes
    encoder = backbone.encoder
    kinds = {media.kind for media in clips}
    routed = [set() if cell.without_media else kinds for cell in cells if cell.anchors is not None]
    return Needs(
        clips=len(clips),
        clips_to_encode=len(missing),
        store_bytes=sum(clip_bytes(encoder, media, sound_seconds, dtype) for media in missing),
        experts=len(cells),
        expert_bytes=stored * numbers,
        anchors=len(routed),
        anchor_bytes=sum(
            modality_bytes(encoder.routing_widths[name]) for names in routed for name in {"text", *names}
        ),
        checkpoint_bytes=3 * FLOAT32 * numbers if cells else 0,
        steps=sum(
            count_steps(cell.recipe.questions(cell, questions), step_size, config.epochs) for cell in cells
        ),
        host_bytes=dtype.itemsize * sum(p.numel() for p in backbone.llm.parameters())
        + sum(p.numel() * p.element_size() for p in encoder.parameters()),
    )


def clip_bytes(
    encoder: MediaEncoder, media: Media, sound_seconds: Mapping[Path, float], dtype: torch.dtype
) -> int:
    """Stored tokens and routing vector of one clip: P D or (windows Q) D values of `dtype`, W of float32."""
    if media.kind == "audio":
        windows = sound_windows(encoder.audio, sound_seconds.get(media.paths[0]))
        tokens, width = windows * encoder.aligner.query_tokens.shape[1], encoder.audio.width
    else:
        tokens, width = encoder.vision.patches, encoder.vision.width
    return tokens * encoder.llm_width * dtype.itemsize + width * FLOAT32


def sound_windows(tower: AudioTower, length: float | None) -> int:
    """Windows that a sound of so many seconds is cut into; one where the length is not known."""
    if length is None:
        return 1
    return min(max(1, math.ceil(length * SAMPLE_RATE / tower.window_samples)), tower.max_chunks)


def modality_bytes(width: int) -> int:
    """One modality of an anchor: the mean in float32, sum and second-order sums in float64."""
    scatter = SCATTER_WIDTH if width > WIDE else width
    return width * (FLOAT32 + FLOAT64) + scatter * scatter * FLOAT64
