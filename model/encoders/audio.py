"""Waveforms to BEATs features: chunking, padding masks, Kaldi fbank, audio tower.

Published behaviour: 16 kHz mono audio is cut in chunks of 30 s (at most 20); the last chunk is padded by
repeating its last sample; the fbank (128 bins, 25 ms window, 10 ms shift, povey, no dither) is taken of the
padded chunk times 2^15 and normalised with the AudioSet mean and twice its deviation. The window is
configurable.

Letters: n samples of a clip, C chunks, S samples of a window, T fbank frames, N tokens, W width.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchaudio.compliance import kaldi

from model.encoders.beats import BEATs, group_mask

logger = logging.getLogger(__name__)
SAMPLE_RATE = 16_000
MEL_BINS = 128
FBANK_MEAN, FBANK_STD = 15.41663, 6.55582  # AudioSet statistics of the published checkpoints
FRAME_SAMPLES, SHIFT_SAMPLES = 400, 160  # 25 ms and 10 ms


@dataclass(frozen=True)
class AudioChunks:
    """Input of the audio tower for one or several clips, chunk after chunk.

    fbank (C, T, 128) float32; padding (C, T) bool, True at padding frames; counts: chunks of each clip, sum
    C.
    """

    fbank: Tensor
    padding: Tensor
    counts: tuple[int, ...]

    def split(self, size: int) -> Iterator["AudioChunks"]:
        """The same chunks, at most `size` at a time (their counts are 1 each)."""
        for fbank, padding in zip(self.fbank.split(size), self.padding.split(size), strict=True):
            yield AudioChunks(fbank, padding, (1,) * fbank.shape[0])


def num_frames(samples: int) -> int:
    """Fbank frames of a window of `samples` (only whole 25 ms windows count)."""
    return 1 + (samples - FRAME_SAMPLES) // SHIFT_SAMPLES


def split_waveform(waveform_n: Tensor, window: int, max_chunks: int) -> tuple[Tensor, Tensor]:
    """Cut (n,) in chunks (C, window); the last is padded with its last sample. Returns chunks and padding (C,
    window).

    Raises: ValueError for an empty, multi-channel or non-finite waveform.
    """
    if waveform_n.ndim != 1 or waveform_n.numel() == 0:
        raise ValueError(f"a waveform must have shape (n,) with n >= 1, got {tuple(waveform_n.shape)}")
    if not bool(torch.isfinite(waveform_n).all()):
        raise ValueError("a waveform holds NaN or infinite samples")
    waveform_n = waveform_n.float()[: window * max_chunks]
    n = waveform_n.numel()
    chunks = -(-n // window)
    filler = waveform_n[-1:].expand(chunks * window - n)
    padding = torch.arange(chunks * window, device=waveform_n.device) >= n
    return torch.cat([waveform_n, filler]).view(chunks, window), padding.view(chunks, window)


def normalised_fbank(chunks_CS: Tensor) -> Tensor:
    """Kaldi log-mel fbank (C, T, 128), `(fbank(2^15 x) - mean) / (2 std)`."""
    rows = [
        kaldi.fbank(
            wave[None] * 2**15,
            num_mel_bins=MEL_BINS,
            sample_frequency=SAMPLE_RATE,
            frame_length=1000 * FRAME_SAMPLES / SAMPLE_RATE,
            frame_shift=1000 * SHIFT_SAMPLES / SAMPLE_RATE,
            dither=0.0,
        )
        for wave in chunks_CS
    ]
    return (torch.stack(rows) - FBANK_MEAN) / (2 * FBANK_STD)


class AudioTower(nn.Module):
    """BEATs over windows of a fixed length."""

    def __init__(self, beats: BEATs, window_seconds: float = 30.0, max_chunks: int = 20) -> None:
        super().__init__()
        self.beats = beats
        self.window_samples = round(window_seconds * SAMPLE_RATE)
        self.max_chunks = max_chunks
        patch = beats.config.input_patch_size
        shortest = FRAME_SAMPLES + (patch - 1) * SHIFT_SAMPLES
        if self.window_samples < shortest:
            raise ValueError(
                f"audio window of {window_seconds} s is shorter than one patch, {shortest / SAMPLE_RATE} s"
            )

    @property
    def width(self) -> int:
        return self.beats.width

    @property
    def tokens_per_chunk(self) -> int:
        return self.beats.num_tokens(num_frames(self.window_samples), MEL_BINS)

    def prepare(self, waveforms: Sequence[Tensor]) -> AudioChunks:
        """Fbanks and masks of clips (n_i,) float, 16 kHz mono in [-1, 1]; longer than max_chunks windows: cut
        off.
        """
        fbanks, paddings, counts = [], [], []
        for index, waveform in enumerate(waveforms):
            try:
                chunks_CS, padding_CS = split_waveform(waveform, self.window_samples, self.max_chunks)
            except ValueError as error:
                raise ValueError(f"audio clip {index}: {error}") from None
            if waveform.numel() > self.window_samples * self.max_chunks:
                seconds = self.window_samples * self.max_chunks / SAMPLE_RATE
                logger.warning(
                    "audio clip %d: only the first %.1f of %.1f s are used",
                    index,
                    seconds,
                    waveform.numel() / SAMPLE_RATE,
                )
            fbanks.append(normalised_fbank(chunks_CS))
            paddings.append(group_mask(padding_CS, num_frames(self.window_samples)))
            counts.append(chunks_CS.shape[0])
        return AudioChunks(torch.cat(fbanks), torch.cat(paddings), tuple(counts))

    def forward(self, chunks: AudioChunks) -> Tensor:
        """BEATs features (C, N, W) of all chunks, outputs at padding positions included."""
        weight = self.beats.patch_embedding.weight
        return self.beats(chunks.fbank.to(weight), chunks.padding.to(weight.device))
