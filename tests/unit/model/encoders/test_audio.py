"""Chunks, padding, fbank and the audio tower."""

import pytest
import torch

from model.encoders.audio import MEL_BINS, AudioTower, normalised_fbank, num_frames, split_waveform
from model.encoders.beats import BEATs, BEATsConfig, group_mask


@pytest.fixture(scope="module")
def tower() -> AudioTower:
    torch.manual_seed(0)
    sizes = {"encoder_layers": 1, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 16, "embed_dim": 16}
    config = BEATsConfig(**sizes, encoder_attention_heads=2, conv_pos=8, conv_pos_groups=2)
    return AudioTower(BEATs(config), window_seconds=0.5, max_chunks=3).eval()


def test_chunks_are_padded_with_the_last_sample() -> None:
    wave = torch.arange(1.0, 8.0)
    chunks, padding = split_waveform(wave, window=5, max_chunks=9)
    assert chunks.tolist() == [[1, 2, 3, 4, 5], [6, 7, 7, 7, 7]]
    assert padding.tolist() == [[False] * 5, [False, False, True, True, True]]


def test_a_clip_of_whole_windows_has_no_padding_and_a_long_one_is_cut() -> None:
    chunks, padding = split_waveform(torch.ones(10), window=5, max_chunks=9)
    assert chunks.shape == (2, 5)
    assert not padding.any()
    assert split_waveform(torch.ones(11), window=5, max_chunks=9)[0].shape == (3, 5)
    assert split_waveform(torch.ones(11), window=5, max_chunks=2)[0].shape == (2, 5)


@pytest.mark.parametrize("wrong", [torch.zeros(0), torch.zeros(2, 5), torch.tensor([0.0, float("nan")])])
def test_unusable_waveforms_are_refused_with_their_place(wrong: torch.Tensor, tower: AudioTower) -> None:
    with pytest.raises(ValueError, match="audio clip 1"):
        tower.prepare([torch.zeros(100), wrong])


@pytest.mark.parametrize("samples", [400, 559, 560, 4000, 66_800])
def test_frame_count_is_kaldis(samples: int) -> None:
    assert normalised_fbank(torch.randn(1, samples)).shape == (1, num_frames(samples), MEL_BINS)


def test_published_window() -> None:
    """30 s: 2998 frames, 1496 tokens; 2 s of sound leave 200 frames and 100 tokens unmasked (recorded
    values).
    """
    beats = BEATs(
        BEATsConfig(encoder_layers=1, encoder_embed_dim=16, encoder_attention_heads=2, embed_dim=16)
    )
    tower = AudioTower(beats)
    assert tower.window_samples == 480_000
    assert num_frames(tower.window_samples) == 2998
    assert tower.tokens_per_chunk == 1496
    padding = torch.arange(480_000) >= 32_000
    frames = group_mask(padding, 2998)
    assert int((~frames).sum()) == 200
    assert int((~group_mask(frames, 1496)).sum()) == 100


def test_fbank_scale() -> None:
    """A silent clip gives log(float epsilon), normalised with the AudioSet statistics."""
    silent = normalised_fbank(torch.zeros(1, 8000))
    expected = (torch.tensor(torch.finfo(torch.float32).eps).log() - 15.41663) / (2 * 6.55582)
    torch.testing.assert_close(silent, expected.expand_as(silent))


@torch.no_grad()
def test_clips_do_not_depend_on_their_company(tower: AudioTower) -> None:
    clips = [torch.randn(n, generator=torch.Generator().manual_seed(n)) * 0.1 for n in (3000, 8000, 13_000)]
    chunks = tower.prepare(clips)
    assert chunks.counts == (1, 1, 2)
    together = tower(chunks).split(chunks.counts)
    for clip, features in zip(clips, together, strict=True):
        alone = tower(tower.prepare([clip]))
        assert alone.shape == (features.shape[0], tower.tokens_per_chunk, tower.width)
        torch.testing.assert_close(features, alone, atol=1e-5, rtol=1e-5)


def test_too_short_a_window_is_refused(tower: AudioTower) -> None:
    with pytest.raises(ValueError, match=r"0\.1 s"):
        AudioTower(tower.beats, window_seconds=0.1)


def test_what_is_cut_off_is_said(tower: AudioTower, caplog: pytest.LogCaptureFixture) -> None:
    limit = 3 * 8000
    assert tower.prepare([torch.ones(limit)]).counts == (3,)
    assert not caplog.records
    assert tower.prepare([torch.ones(100), torch.ones(limit + 16_000)]).counts == (1, 3)
    assert "audio clip 1: only the first 1.5 of 2.5 s" in caplog.text
