"""What the published collation puts where a sample of a batch lacks a modality, as the towers see it.

Only the published anchors (model/moe/published_anchors.py) need it: there a batch is stacked, and what fills
it up enters the mean. Values of the normalised fbank, unmasked; that of the filler is not documented: of all
values tried this one gives the recorded feature to 4e-7 (-0.19 and -0.21 are off by 1e-6).

Letters: P patches, N audio tokens, W tower width.
"""

import torch
from torch import Tensor

from model.encoders.audio import MEL_BINS, AudioChunks, num_frames
from model.encoders.features import MediaEncoder

NO_VIDEO_FRAMES = 8
"""Black frames of a sample without video."""
NO_AUDIO = 1.0
"""Normalised fbank of the one chunk of a sample without audio."""
FILLER_CHUNK = -0.2
"""Normalised fbank of the chunks that a clip has fewer than the longest of its batch."""


@torch.no_grad()
def black_frame(encoder: MediaEncoder) -> Tensor:
    """Patch features of an all-zero frame, after preprocessing. (P, W)"""
    weight = next(encoder.vision.parameters())
    frame: Tensor = encoder.vision(torch.zeros(1, 3, *encoder.vision.image_size, device=weight.device))
    return frame[0]


@torch.no_grad()
def constant_chunk(encoder: MediaEncoder, value: float) -> Tensor:
    """Audio features of a chunk whose normalised fbank is `value` everywhere. (N, W)"""
    weight = next(encoder.audio.parameters())
    shape = (1, num_frames(encoder.audio.window_samples), MEL_BINS)
    fbank = torch.full(shape, value, device=weight.device)
    padding = torch.zeros(shape[:2], dtype=torch.bool, device=weight.device)
    chunk: Tensor = encoder.audio(AudioChunks(fbank, padding, (1,)))
    return chunk[0]
