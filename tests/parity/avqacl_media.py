"""Media: pixels, fbanks, towers, projector, aligner and routing features of every sample."""

from typing import Any

import torch

from model.encoders.beats import group_mask
from model.language_model.backbone import Backbone
from tests.parity.recorded import FBANK

VISUAL = ("pixel_values_frame0", "pixel_values_frame_means", "clip_features", "mm_projector", "video_tokens")


def test_frames(case: Any, backbone: Backbone) -> None:
    expected = case.expected
    if not case.pixels:
        assert not any(expected.has(key) for key in VISUAL)
        return
    pixels = torch.cat(case.pixels)
    patches = backbone.encoder.vision(pixels)
    expected.compare("pixel_values_frame0", pixels[0])
    expected.compare("pixel_values_frame_means", pixels.mean((2, 3)))
    expected.compare("clip_features", patches)
    expected.compare("mm_projector", backbone.encoder.projector(patches))
    expected.compare("video_tokens", torch.cat([features.tokens for features in case.visual]))


def test_audio(case: Any, backbone: Backbone) -> None:
    """Chunks, masks, fbank, features and tokens; what is recorded of one chunk is of the first."""
    expected, tower = case.expected, backbone.encoder.audio
    assert expected.compare_exactly("features_mask", torch.tensor(case.chunk_owners))
    if not case.waveforms:
        return
    fbank, padding = case.chunks.fbank[0], case.chunks.padding[0]
    frames = int((~padding).sum())
    counts = {
        "num_audio_samples": len(case.waveforms[0]),
        "num_unmasked_fbank_frames": frames,
        "num_unmasked_beats_tokens": int((~group_mask(padding, tower.tokens_per_chunk)).sum()),
    }
    for key, count in counts.items():
        expected.compare_exactly(key, torch.tensor([count]))
    rows = fbank[: frames + 2]  # two rows beyond the sound; the tail is what follows
    expected.compare("fbank_rows", rows, FBANK)
    if len(rows) < len(fbank):
        tail = fbank[len(rows) :]
        expected.compare("fbank_tail_minmax", torch.stack([tail.min(), tail.max()]), FBANK)
    expected.compare("beats", case.sounds[0])
    expected.compare("audio_tokens", torch.cat([features.tokens for features in case.audible]))


def test_routing_features(case: Any, backbone: Backbone) -> None:
    """Every modality of the sample has its recorded feature, and no other has one."""
    ours = case.routing
    for kind in ("text", "image", "video", "audio"):
        assert case.expected.has(f"anchor_eval_{kind}") == (kind in ours)
        if kind in ours:
            assert case.expected.compare(f"anchor_eval_{kind}", ours[kind])
    # What the library routes by: means over positions too, one vector a medium.
    for features, clip in zip(case.visual, case.pixels, strict=True):
        torch.testing.assert_close(features.routing, backbone.encoder.vision(clip).mean((0, 1)))
    if case.waveforms:
        for features, clip in zip(case.audible, case.sounds.split(case.chunks.counts), strict=True):
            torch.testing.assert_close(features.routing, clip.mean((0, 1)), rtol=1e-4, atol=1e-5)
