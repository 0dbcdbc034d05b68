"""Media features: what is averaged, independence of clips, fingerprints."""

from pathlib import Path

import pytest
import soundfile
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from model.encoders.aligner import AudioAligner, QFormerConfig
from model.encoders.audio import AudioTower
from model.encoders.beats import BEATs, BEATsConfig
from model.encoders.features import MediaEncoder
from model.encoders.images import ImageSpec
from model.encoders.projector import build_projector
from model.encoders.vision import VisionTower
from model.language_model.backbone import find_checkpoints, load_backbone

WINDOW = 8000


def make_encoder(window_seconds: float = WINDOW / 16_000, seed: int = 0) -> MediaEncoder:
    torch.manual_seed(seed)
    clip = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    vision = VisionTower(CLIPVisionModel(clip), ImageSpec(16, 16), -2)
    beats = BEATs(
        BEATsConfig(
            encoder_layers=1,
            encoder_embed_dim=24,
            encoder_ffn_embed_dim=24,
            encoder_attention_heads=2,
            embed_dim=8,
            conv_pos=8,
            conv_pos_groups=2,
        )
    )
    sizes = QFormerConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, encoder_hidden_size=24
    )
    projector = build_projector("mlp2x_gelu", 16, 12)
    return MediaEncoder(vision, projector, AudioTower(beats, window_seconds), AudioAligner(sizes, 3, 12))


@pytest.fixture(scope="module")
def encoder() -> MediaEncoder:
    return make_encoder()


def frames(count: int) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(count))


def sound(samples: int) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1


def test_frames_are_projected_then_averaged_and_routed_on_the_tower(encoder: MediaEncoder) -> None:
    clip = frames(3)
    (features,) = encoder.encode_frames([clip])
    patches = encoder.vision(clip)
    torch.testing.assert_close(features.tokens, encoder.projector(patches).mean(0))
    torch.testing.assert_close(features.routing, patches.mean((0, 1)))
    early = encoder.projector(patches.mean(0))
    assert not torch.allclose(features.tokens, early, atol=1e-3), (
        "order of mean and projector must matter here"
    )
    assert features.tokens.shape == (4, 12)
    assert not features.tokens.requires_grad


def test_audio_tokens_are_chunk_after_chunk(encoder: MediaEncoder) -> None:
    wave = sound(WINDOW + 3000)
    (features,) = encoder.encode_audio([wave])
    outputs = encoder.audio(encoder.audio.prepare([wave]))
    torch.testing.assert_close(
        features.tokens, torch.cat(list(encoder.aligner(outputs))), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(features.routing, outputs.mean((0, 1)), atol=1e-5, rtol=1e-5)
    assert features.tokens.shape == (6, 12)
    (first,) = encoder.encode_audio([wave[:WINDOW]])
    torch.testing.assert_close(features.tokens[:3], first.tokens, atol=1e-5, rtol=1e-5)


def test_clips_do_not_depend_on_their_company(encoder: MediaEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.encoders.features.FRAMES_AT_ONCE", 4)
    monkeypatch.setattr("model.encoders.features.CHUNKS_AT_ONCE", 2)
    clips = [frames(n) for n in (1, 5, 3)]
    waves = [sound(n) for n in (2000, 20_000, 9000)]
    together = encoder.encode_frames(clips) + encoder.encode_audio(waves)
    alone = [encoder.encode_frames([c])[0] for c in clips] + [encoder.encode_audio([w])[0] for w in waves]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a.tokens, b.tokens, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a.routing, b.routing, atol=1e-5, rtol=1e-5)


def counted(encoder: MediaEncoder) -> list[int]:
    """Frames of each call of the vision tower from now on."""
    calls: list[int] = []
    encoder.vision.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    return calls


def test_frames_of_equal_pixels_are_encoded_once_and_bits_do_not_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("model.encoders.features.MANY_PATCHES", 4)
    a, b, c, d = frames(4)
    clips = [torch.stack(clip) for clip in ((a, b, a, a), (b, c, b, c), (a, a, a, a), (d.clone(), c, b, a))]
    encoder, without = make_encoder(), make_encoder()
    without.frame_memory.bound = 0
    calls, all_calls = counted(encoder), counted(without)
    together = encoder.encode_frames(clips[:2]) + encoder.encode_frames(clips[2:])
    alone = [without.encode_frames([clip])[0] for clip in clips]
    assert calls == [4] * 3 and all_calls == [4] * 4  # the third clip holds nothing new
    for x, y in zip(together, alone, strict=True):
        assert torch.equal(x.tokens, y.tokens) and torch.equal(x.routing, y.routing)


def test_a_frame_is_encoded_again_after_a_change_of_the_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.encoders.features.MANY_PATCHES", 4)
    encoder, clip = make_encoder(), frames(3)
    before = encoder.encode_frames([clip])[0]
    with torch.no_grad():
        next(encoder.vision.parameters()).add_(0.5)
    after = encoder.encode_frames([clip])[0]
    assert not torch.equal(before.routing, after.routing)


def test_towers_with_few_patches_take_whole_clips() -> None:
    few = make_encoder()
    calls = counted(few)
    few.encode_frames([frames(3), frames(2)])
    assert calls == [5]


def test_nothing_to_encode(encoder: MediaEncoder) -> None:
    assert encoder.encode_frames([]) == []
    assert encoder.encode_audio([]) == []


@pytest.mark.parametrize("shape", [(0, 3, 16, 16), (2, 3, 16, 8), (3, 16, 16)])
def test_wrong_frames_are_refused_with_their_place(encoder: MediaEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"clip 1: expected frames \(F, 3, 16, 16\)"):
        encoder.encode_frames([frames(2), torch.zeros(shape)])


def test_encoder_is_frozen_and_knows_its_width(encoder: MediaEncoder) -> None:
    assert encoder.llm_width == 12
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(isinstance(m, nn.Module) and m.training for m in encoder.modules())


def test_fingerprints_change_with_what_changes_the_features() -> None:
    base, same, window = make_encoder(), make_encoder(), make_encoder(window_seconds=1.0)
    assert base.vision_fingerprint == same.vision_fingerprint == window.vision_fingerprint
    assert base.audio_fingerprint == same.audio_fingerprint != window.audio_fingerprint
    with torch.no_grad():
        same.projector.get_parameter("2.bias").add_(1e-3)
    assert base.vision_fingerprint != same.vision_fingerprint
    assert base.audio_fingerprint == same.audio_fingerprint
    with torch.no_grad():
        same.aligner.query_tokens.add_(1e-3)
    assert base.audio_fingerprint != same.audio_fingerprint
    same.projector.load_state_dict(base.projector.state_dict())
    same.vision.spec = ImageSpec(16, 16, shortest_edge=16)
    assert base.vision_fingerprint != same.vision_fingerprint


def test_towers_in_16_bits_have_their_own_fingerprints_and_nearly_the_same_features(repo_root: Path) -> None:
    paths, _ = find_checkpoints(repo_root / "checkpoints/tiny")
    base, short = (load_backbone(paths, towers=dtype).encoder for dtype in (torch.float32, torch.bfloat16))
    assert base.vision_fingerprint != short.vision_fingerprint
    assert base.audio_fingerprint != short.audio_fingerprint
    wave, _ = soundfile.read(sorted(repo_root.glob("data_sample/media/test*/a.ogg"))[0])
    clip = [Image.open(path) for path in sorted(repo_root.glob("data_sample/media/test000/f*.jpg"))]
    exact, rounded = (
        encoder.encode_frames([encoder.preprocess_frames(clip)])
        + encoder.encode_audio([torch.tensor(wave).float()])
        for encoder in (base, short)
    )
    for a, b in zip(exact, rounded, strict=True):
        for x, y in ((a.tokens, b.tokens), (a.routing, b.routing)):
            assert y.dtype == torch.float32
            assert 0 < (x - y).norm() < 0.03 * x.norm()
