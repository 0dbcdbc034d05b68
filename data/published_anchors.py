"""A task's anchor with the published arithmetic, from the feature store: `--anchor_statistics published`.

Differences to the anchors of this project: batches are averaged, not samples; every epoch counts again; the
text feature is the mean input embedding of prompt, answer and padding. Legend: W feature width, D LLM width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data.inputs import Inputs
from data.samples import Sample, is_picture
from model.encoders.placeholders import (
    FILLER_CHUNK,
    NO_AUDIO,
    NO_VIDEO_FRAMES,
    black_frame,
    constant_chunk,
)
from model.moe.anchors import Anchor
from model.moe.published_anchors import PublishedAnchors, batch_feature


def published_anchor(
    inputs: Inputs, task_id: int, samples: Sequence[Sample], batches: Iterable[Sequence[int]]
) -> Anchor:
    """The running mean over the training batches, position means only, without statistics.

    Args:
        samples: training samples, their media in the store.
        batches: indices into `samples` of every forward pass, in training order.

    Raises:
        ValueError: no batch could be stacked (videos of unequal frame counts in each).
    """
    encoder = inputs.encoder
    black = black_frame(encoder).mean(0).cpu()
    blanks = {"video": black.expand(NO_VIDEO_FRAMES, -1), "image": black[None]}
    blanks["audio"] = constant_chunk(encoder, NO_AUDIO).mean(0).cpu()[None]
    filler = constant_chunk(encoder, FILLER_CHUNK).mean(0).cpu()
    rows = [_clips(inputs, sample) for sample in samples]
    anchors = PublishedAnchors()
    for batch in batches:
        features = {"text": _text(inputs, [samples[index] for index in batch])}
        try:
            for kind, blank in blanks.items():
                clips = [rows[index].get(kind) for index in batch]
                feature = batch_feature(clips, blank, filler if kind == "audio" else None)
                if feature is not None:
                    features[kind] = feature
        except ValueError:  # cannot be stacked: the published code takes nothing from such a batch
            continue
        anchors.update(features)
    if not anchors.count:
        raise ValueError(
            f"task {task_id}: in every batch the videos have unequal numbers of frames, which the published "
            "statistics cannot average; use --anchor_statistics once or as many frames in every clip"
        )
    return Anchor(task_id, inputs.base_identity, {name: m.double() for name, m in anchors.means.items()})


def _clips(inputs: Inputs, sample: Sample) -> Mapping[str, Tensor]:
    """Modality -> routing means of the frames or chunks of all its media. (C, W)

    The store keeps a clip's mean only; it stands for each of its frames or chunks: their sum stays as it is.
    """
    found: dict[str, list[Tensor]] = {}
    queries = inputs.encoder.aligner.query_tokens.shape[1]
    for item in sample.media:
        features, frames = inputs.store.get(item), inputs.store.num_frames
        if item.kind == "audio":
            count = len(features.tokens) // queries
        elif item.kind == "image" or is_picture(item.paths[0]):
            count = min(len(item.paths), frames)
        else:  # a video file
            count = frames
        found.setdefault(item.kind, []).append(features.routing.cpu().expand(count, -1))
    return {kind: torch.cat(parts) for kind, parts in found.items()}


def _text(inputs: Inputs, samples: Sequence[Sample]) -> Tensor:
    """Mean input embedding of the padded prompts with answers; media ids are left out. (D,)"""
    prompts = [inputs.prompt(sample, with_answer=True).input_ids for sample in samples]
    ids = pad_sequence(prompts, batch_first=True, padding_value=inputs.tokenizer.pad_token_id)
    return inputs.mean_embedding(ids.flatten())
