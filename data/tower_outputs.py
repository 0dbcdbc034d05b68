"""Outputs of the frozen towers, for training what comes after them.

The feature store keeps what the LLM reads, which changes while projector and aligner learn; these are the
outputs before. They are large (19 MB for a clip of 8 frames of CLIP-L/336), so the latest are held in memory
and none on disk: one pass over captions encodes each clip once, more passes over few clips do so too.

Letters: F frames, P patches, C chunks, N audio tokens, W tower width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from data.media import load_frames, load_waveform
from data.samples import Media
from model.encoders.features import MediaEncoder


class TowerOutputs:
    """Tower outputs of clips, computed when asked for.

    Args:
        encoder: its towers, on the device where they run.
        num_frames: frames per video.
        memory_bytes: bound of the outputs held in memory.
        workers: threads that decode media.
    """

    def __init__(
        self, encoder: MediaEncoder, *, num_frames: int = 8, memory_bytes: int = 2**31, workers: int = 2
    ) -> None:
        if num_frames < 1:
            raise ValueError(f"num_frames: got {num_frames}, expected at least 1")
        self.encoder, self.num_frames, self.bound, self.size = encoder, num_frames, memory_bytes, 0
        self._kept: OrderedDict[Media, Tensor] = OrderedDict()
        self._pool = ThreadPoolExecutor(max(1, workers))

    def get(self, media: Sequence[Media]) -> list[Tensor]:
        """Per medium (F, P, W) or, for sound, (C, N, W), float32 on the CPU. Raises MediaError."""
        asked = [replace(medium, tagged=True) for medium in media]
        missing = [medium for medium in dict.fromkeys(asked) if medium not in self._kept]
        found = {medium: self._kept[medium] for medium in asked if medium in self._kept}
        for medium, decoded in zip(missing, self._pool.map(self._decode, missing), strict=True):
            towers = self.encoder.sound_features if medium.kind == "audio" else self.encoder.frame_features
            found[medium] = towers([decoded.to(self._device)])[0].cpu()
        for medium, output in found.items():
            self._keep(medium, output)
        return [found[medium] for medium in asked]

    @property
    def _device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    def _decode(self, medium: Media) -> Tensor:
        """Frames (F, 3, H, W) or waveform (n,)."""
        if medium.kind == "audio":
            return torch.from_numpy(load_waveform(medium))
        return self.encoder.preprocess_frames(load_frames(medium, self.num_frames))

    def _keep(self, medium: Media, output: Tensor) -> None:
        if medium not in self._kept:
            self.size += output.nbytes
        self._kept[medium] = output
        self._kept.move_to_end(medium)
        while self.size > self.bound:
            _, dropped = self._kept.popitem(last=False)
            self.size -= dropped.nbytes
