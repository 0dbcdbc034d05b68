"""From preprocessed media to what the rest needs: media tokens for the LLM and one routing vector for the
anchors.

All of it is frozen and runs in float32, whatever the LLM's dtype, so that routing does not depend on it;
unless the towers themselves are asked for in 16 bits, which then is part of their fingerprints.

On a CPU frames with many patches, which take long, are not encoded again where the same pixels were a moment
ago, in the same clip or another; the bits are the same (frame_memory.py).

Letters: F frames, P patches, C audio chunks, N audio tokens, Q query tokens, W tower width, D LLM width, T
media tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from model.encoders.aligner import AudioAligner
from model.encoders.audio import AudioTower
from model.encoders.frame_memory import FrameMemory
from model.encoders.rounded import RoundedCopies
from model.encoders.vision import VisionTower
from model.tensor_files import digest_tensors

FRAMES_AT_ONCE = 64  # bounds the memory of one tower call
MANY_PATCHES = 256  # from which on a frame is looked for among those encoded before
CHUNKS_AT_ONCE = 8


@dataclass(frozen=True)
class MediaFeatures:
    """One clip as the LLM and the router see it.

    tokens (T, D) float32: projected media tokens; T = P for frames, C * Q for audio.
    routing (W,) float32: mean of the tower's output over positions (and frames or chunks), before the
    projector.
    """

    tokens: Tensor
    routing: Tensor


class MediaEncoder(nn.Module):
    """Vision tower with projector and audio tower with aligner, frozen and in eval mode.

    Args:
        precision: of the matrix products; weights, norms, means and results stay in float32.
    """

    def __init__(
        self,
        vision: VisionTower,
        projector: nn.Module,
        audio: AudioTower,
        aligner: AudioAligner,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.vision, self.projector = vision, projector
        self.audio, self.aligner = audio, aligner
        self.precision = precision
        self._rounded, self.frame_memory = RoundedCopies(), FrameMemory()
        self.requires_grad_(False).eval()

    @property
    def llm_width(self) -> int:
        """D"""
        return self.aligner.llm_width

    @property
    def routing_widths(self) -> dict[str, int]:
        """Modality -> width of its routing feature; that of text is the LLM's."""
        vision, audio = self.vision.width, self.audio.width
        return {"text": self.llm_width, "video": vision, "image": vision, "audio": audio}

    @property
    def vision_fingerprint(self) -> str:
        """SHA-256 that changes with vision weights, projector weights, selected layer or preprocessing."""
        return self._digest(
            "vision", self.vision, self.projector, f"{self.vision.select_layer} {self.vision.spec}"
        )

    @property
    def audio_fingerprint(self) -> str:
        """SHA-256 that changes with audio weights, aligner weights, their sizes or the window."""
        settings = (
            self.audio.window_samples,
            self.audio.max_chunks,
            self.audio.beats.config,
            self.aligner.config,
        )
        return self._digest("audio", self.audio, self.aligner, str(settings))

    def _digest(self, kind: str, tower: nn.Module, projector: nn.Module, note: str) -> str:
        named = {f"tower.{name}": tensor for name, tensor in tower.state_dict().items()}
        named |= {f"projector.{name}": tensor for name, tensor in projector.state_dict().items()}
        if self.precision != torch.float32:
            note += f" {self.precision} rounded once"  # another order of rounding is another fingerprint
        return digest_tensors(named, f"{kind} {note}")

    def _products(self) -> torch.autocast:
        """The context in which matrix products have the wanted precision."""
        device = next(self.parameters()).device.type
        return torch.autocast(device, self.precision, enabled=self.precision != torch.float32)

    @property
    def _on_cpu(self) -> bool:
        return next(self.parameters()).device.type == "cpu"

    def _part(self, name: str) -> nn.Module:
        """A tower, projector or aligner; without gradient and in bf16 on a CPU its rounded copy."""
        part: nn.Module = getattr(self, name)
        if self.precision != torch.bfloat16 or not self._on_cpu or torch.is_grad_enabled():
            return part
        if name == "vision" and self.vision.open_clip_layer is not None:  # layers of other kinds
            return part
        return self._rounded.of(name, part)

    @torch.no_grad()
    def round_parts(self) -> None:
        """Make what is made at first use now, so that forked processes share it."""
        for name in ("vision", "projector", "audio", "aligner"):
            self._part(name)

    def preprocess_frames(self, images: Sequence[Image.Image]) -> Tensor:
        """PIL images of one clip to (F, 3, H, W) float32."""
        return self.vision.preprocess(images)

    @torch.no_grad()
    def frame_features(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Outputs (F_i, P, W) of the vision tower for clips of frames (F_i, 3, H, W)."""
        for index, clip in enumerate(clips):
            if clip.ndim != 4 or clip.shape[0] == 0 or tuple(clip.shape[1:]) != (3, *self.vision.image_size):
                raise ValueError(
                    f"clip {index}: expected frames (F, 3, {', '.join(map(str, self.vision.image_size))}), "
                    f"got {tuple(clip.shape)}"
                )
        if not clips:
            return []
        if self._on_cpu and self.vision.patches >= MANY_PATCHES:
            return self._remembered(clips)
        frames, tower = torch.cat(list(clips)).split(FRAMES_AT_ONCE), self._part("vision")
        with self._products():
            patches = torch.cat([tower(part).float() for part in frames])  # (sum F, P, W)
        return list(patches.split([clip.shape[0] for clip in clips]))

    def _remembered(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Tower outputs (F_i, P, W) on a CPU, frames of equal pixels computed once."""
        tower = self._part("vision")

        def encode(frames_N3HW: Tensor) -> Tensor:
            return tower(frames_N3HW).float()  # type: ignore[no-any-return]

        made_with = self.precision, [parameter._version for parameter in self.vision.parameters()]
        with self._products():
            return [self.frame_memory.get(clip, made_with, encode) for clip in clips]

    def frame_tokens(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Media tokens (P, D) of clips (F_i, P, W): frames are projected, then averaged over time."""
        projector = self._part("projector")
        with self._products():
            return [projector(clip_FPW).float().mean(0) for clip_FPW in features]

    @torch.no_grad()
    def sound_features(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Outputs (C_i, N, W) of the audio tower for waveforms (n_i,) float32, 16 kHz mono."""
        if not waveforms:
            return []
        chunks = self.audio.prepare(waveforms)
        tower = self._part("audio")
        with self._products():
            outputs = [tower(part).float() for part in chunks.split(CHUNKS_AT_ONCE)]  # (C, N, W) each
        return list(torch.cat(outputs).split(chunks.counts))

    def sound_tokens(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Media tokens (C_i * Q, D) of clips (C_i, N, W), chunk after chunk."""
        if not features:
            return []
        aligner = self._part("aligner")
        with self._products():
            tokens = aligner(torch.cat(list(features))).float()  # (sum C, Q, D)
        return [clip.flatten(0, 1) for clip in tokens.split([len(clip) for clip in features])]

    @torch.no_grad()
    def encode_frames(self, clips: Sequence[Tensor]) -> list[MediaFeatures]:
        """Encode clips of frames (F_i, 3, H, W); an image is a clip of one frame."""
        features = self.frame_features(clips)
        tokens = self.frame_tokens(features)
        return [MediaFeatures(t, clip.mean((0, 1))) for t, clip in zip(tokens, features, strict=True)]

    @torch.no_grad()
    def encode_audio(self, waveforms: Sequence[Tensor]) -> list[MediaFeatures]:
        """Encode waveforms (n_i,) float32, 16 kHz mono."""
        features = self.sound_features(waveforms)
        tokens = self.sound_tokens(features)
        return [MediaFeatures(t, clip.mean((0, 1))) for t, clip in zip(tokens, features, strict=True)]
