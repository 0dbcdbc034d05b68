from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from data.feature_store import FeatureStore
from data.media import MediaError
from data.parallel import in_shares
from data.samples import Media, Sample
from model.encoders.features import MediaFeatures


class FakeEncoder:
    """Encodes by simple statistics and counts its calls."""

    def __init__(self, vision: str = "v", audio: str = "a") -> None:
        self.vision_fingerprint, self.audio_fingerprint = vision, audio
        self.calls: list[tuple[str, int]] = []
        self.thread = threading.get_ident()

    def preprocess_frames(self, images: Sequence[Image.Image]) -> Tensor:
        return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1).float() for image in images])

    def encode_frames(self, clips: Sequence[Tensor]) -> list[MediaFeatures]:
        self.calls.append(("frames", len(clips)))
        assert threading.get_ident() == self.thread, "encoding belongs into the calling thread"
        return [MediaFeatures(clip.mean(0).flatten(1).T[:4], clip.mean((0, 2, 3))) for clip in clips]

    def encode_audio(self, waveforms: Sequence[Tensor]) -> list[MediaFeatures]:
        self.calls.append(("sound", len(waveforms)))
        return [MediaFeatures(wave[:12].reshape(4, 3), wave.square().mean().repeat(5)) for wave in waveforms]


def sample(*media: Media) -> Sample:
    return Sample("q", 0, Path("s.json"), "What?", "x", media, {})


def medium(kind: Any, *paths: Path, tagged: bool = True) -> Media:
    return Media(kind, paths, tagged)


def clips(files: Any, count: int = 3) -> list[Sample]:
    """Samples of two frames and a sound each, all different."""
    return [
        sample(
            medium("video", files.picture(f"{i}a.png", 10 * i), files.picture(f"{i}b.png", 10 * i + 5)),
            medium("audio", files.sound(f"{i}.wav", files.tone(level=0.1 + 0.1 * i))),
        )
        for i in range(count)
    ]


def test_each_clip_is_encoded_once_ever(files: Any, tmp_path: Path) -> None:
    samples, encoder = clips(files), FakeEncoder()
    store = FeatureStore(tmp_path / "store", encoder)
    assert store.encode(samples * 2, progress=False) == 6
    assert encoder.calls == [("frames", 1)] * 3 + [("sound", 1)] * 3
    assert store.encode(samples, progress=False) == 0
    for medium_ in samples[1].media:
        store.get(medium_)
    reopened = FeatureStore(tmp_path / "store", encoder)
    assert reopened.encode(samples, progress=False) == 0
    assert len(encoder.calls) == 6


def test_features_are_those_of_the_encoder(files: Any, tmp_path: Path) -> None:
    [one] = clips(files, 1)
    store = FeatureStore(tmp_path / "store", FakeEncoder())
    store.encode([one], progress=False)
    for store_ in (store, FeatureStore(tmp_path / "store", FakeEncoder())):
        frames, sound = (store_.get(m) for m in one.media)
        assert torch.equal(frames.routing, torch.full((3,), 2.5))
        assert frames.tokens.shape == (4, 3)
        assert sound.routing.shape == (5,)
        assert sound.routing[0].item() == pytest.approx(0.1**2 / 2, rel=1e-2)


def test_batches_hold_one_modality(files: Any, tmp_path: Path) -> None:
    encoder = FakeEncoder()
    store = FeatureStore(tmp_path / "store", encoder)
    store.encode(clips(files, 5), batch_size=3, progress=False)
    assert encoder.calls == [("frames", 3), ("frames", 2), ("sound", 3), ("sound", 2)]
    single = FeatureStore(tmp_path / "other", FakeEncoder())
    for one in clips(files, 5):
        for item in one.media:
            assert torch.equal(single.get(item).tokens, store.get(item).tokens)


def test_get_encodes_what_is_missing(files: Any, tmp_path: Path) -> None:
    [one] = clips(files, 1)
    encoder = FakeEncoder()
    store = FeatureStore(tmp_path / "store", encoder)
    first = store.get(one.media[0])
    shutil.rmtree(tmp_path / "store")  # deleted at any time
    assert torch.equal(store.get(one.media[0]).tokens, first.tokens)
    again = FeatureStore(tmp_path / "store", encoder).get(one.media[0])
    assert torch.equal(again.tokens, first.tokens)
    assert encoder.calls == [("frames", 1)] * 2


def test_damaged_files_are_encoded_again(
    files: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [one] = clips(files, 1)
    first = FeatureStore(tmp_path / "store", FakeEncoder()).get(one.media[1])
    [file] = (tmp_path / "store").glob("??/*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    encoder = FakeEncoder()
    assert torch.equal(FeatureStore(tmp_path / "store", encoder).get(one.media[1]).tokens, first.tokens)
    assert encoder.calls == [("sound", 1)]
    assert "is damaged" in caplog.text


def key(root: Path, item: Media, **options: Any) -> str:
    encoder = FakeEncoder(options.pop("vision", "v"), options.pop("audio", "a"))
    return FeatureStore(root, encoder, **options).key(item)


def test_the_key_follows_the_content_not_the_place(files: Any, tmp_path: Path) -> None:
    one, copy = files.picture("x/one.png", 3), files.picture("y/two.png", 3)
    other = files.picture("z/one.png", 4)
    assert key(tmp_path, medium("image", one)) == key(tmp_path, medium("image", copy, tagged=False))
    assert key(tmp_path, medium("image", one)) == key(tmp_path, medium("video", one))
    assert key(tmp_path, medium("image", one)) != key(tmp_path, medium("image", other))
    assert key(tmp_path, medium("video", one, other)) != key(tmp_path, medium("video", other, one))


def test_the_key_follows_towers_and_settings(files: Any, tmp_path: Path) -> None:
    clip = files.video("v.mp4", waveform=files.tone())
    video, sound = medium("video", clip), medium("audio", clip)
    frames = medium("video", *(files.picture(f"{i}.png", i) for i in range(4)))
    assert key(tmp_path, video) != key(tmp_path, sound)
    assert key(tmp_path, video) != key(tmp_path, video, vision="w")
    assert key(tmp_path, video) == key(tmp_path, video, audio="w")
    assert key(tmp_path, sound) != key(tmp_path, sound, audio="w")
    assert key(tmp_path, sound) == key(tmp_path, sound, vision="w", num_frames=3)
    assert key(tmp_path, video) != key(tmp_path, video, num_frames=3)
    assert key(tmp_path, video) != key(tmp_path, video, dtype=torch.float16)
    assert key(tmp_path, frames, num_frames=4) == key(tmp_path, frames, num_frames=8)  # used as given
    assert key(tmp_path, frames, num_frames=4) != key(tmp_path, frames, num_frames=2)


def test_a_changed_file_is_encoded_again(files: Any, tmp_path: Path) -> None:
    item = medium("image", files.picture("i.png", 10))
    store = FeatureStore(tmp_path / "store", FakeEncoder())
    assert store.get(item).routing[0] == 10
    files.picture("i.png", 200, size=(30, 30))
    assert store.get(item).routing[0] == 200


def test_stored_dtype(files: Any, tmp_path: Path) -> None:
    [one] = clips(files, 1)
    store = FeatureStore(tmp_path / "store", FakeEncoder(), dtype=torch.bfloat16)
    fresh = store.get(one.media[0])
    read = FeatureStore(tmp_path / "store", FakeEncoder(), dtype=torch.bfloat16).get(one.media[0])
    for found in (fresh, read):
        assert (found.tokens.dtype, found.routing.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(fresh.tokens, read.tokens)


def test_processes_share_the_work(files: Any, tmp_path: Path) -> None:
    samples = clips(files, 6)
    encoders = [FakeEncoder() for _ in range(3)]
    stores = [FeatureStore(tmp_path / "store", encoder) for encoder in encoders]
    shares = [store.encode(samples, progress=False, rank=rank, world=3) for rank, store in enumerate(stores)]
    assert shares == [4, 4, 4]
    assert [len(encoder.calls) for encoder in encoders] == [4, 4, 4]
    assert stores[0].missing(samples) == {}
    alone = FeatureStore(tmp_path / "alone", FakeEncoder())
    assert all(torch.equal(alone.get(m).tokens, stores[1].get(m).tokens) for s in samples for m in s.media)


def test_shares_are_of_each_modality_and_do_not_depend_on_what_is_there(files: Any, tmp_path: Path) -> None:
    samples = clips(files, 4)
    first, second = (FeatureStore(tmp_path / "store", FakeEncoder()) for _ in range(2))
    assert first.encode(samples, progress=False, rank=0, world=2) == 4
    held = first.missing(samples).values()
    assert sorted(media.kind for media in held) == ["audio", "audio", "video", "video"]
    assert second.encode(samples, progress=False, rank=0, world=2) == 0  # a share begins again
    assert second.encode(samples, progress=False, rank=1, world=2) == 4
    assert first.missing(samples) == {}


def test_forked_processes_share_the_work(files: Any, tmp_path: Path) -> None:
    samples, encoder = clips(files, 6), FakeEncoder()
    store = FeatureStore(tmp_path / "store", encoder)
    shares = in_shares(lambda rank, world: store.encode(samples, progress=False, rank=rank, world=world), 2)
    assert shares == [6, 6] and encoder.calls == []
    assert store.missing(samples) == {}
    alone = FeatureStore(tmp_path / "alone", FakeEncoder())
    assert all(torch.equal(alone.get(m).tokens, store.get(m).tokens) for s in samples for m in s.media)


def test_writers_at_the_same_time(files: Any, tmp_path: Path) -> None:
    samples = clips(files, 6)

    def encode_all(_: int) -> int:
        return FeatureStore(tmp_path / "store", FakeEncoder()).encode(samples, progress=False)

    with ThreadPoolExecutor(4) as pool:
        encoded = list(pool.map(encode_all, range(4)))
    assert sum(encoded) >= 12
    store = FeatureStore(tmp_path / "store", FakeEncoder())
    assert store.missing(samples) == {}
    written = list((tmp_path / "store").glob("??/*"))
    assert len(written) == 12
    assert store.size_bytes() == sum(path.stat().st_size for path in written)
    alone = FeatureStore(tmp_path / "alone", FakeEncoder())
    assert all(torch.equal(alone.get(m).tokens, store.get(m).tokens) for s in samples for m in s.media)


def test_bad_clips_are_named(files: Any, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store", FakeEncoder())
    good = clips(files, 1)
    with pytest.raises(
        MediaError, match="gone.png: No such file or directory; check the path and the media root"
    ):
        store.encode([*good, sample(medium("image", files.path("gone.png")))], progress=False)
    torn = files.path("torn.jpg")
    torn.write_bytes(files.picture("whole.jpg").read_bytes()[:300])
    with pytest.raises(MediaError, match="torn.jpg: cannot be decoded"):
        store.encode([*good, sample(medium("image", torn))], progress=False)
    assert store.missing(good).keys() <= {store.key(good[0].media[1])}  # the frames before it are kept


def test_encoder_faults_name_the_clip(files: Any, tmp_path: Path) -> None:
    class Refusing(FakeEncoder):
        def encode_audio(self, waveforms: Sequence[Tensor]) -> list[MediaFeatures]:
            raise ValueError("audio clip 0: too short")

        def encode_frames(self, clips: Sequence[Tensor]) -> list[MediaFeatures]:
            return [MediaFeatures(torch.full((1, 1), torch.nan), torch.zeros(1))]

    store = FeatureStore(tmp_path / "store", Refusing())
    [one] = clips(files, 1)
    with pytest.raises(ValueError, match="0a.png: the video encoder gives values that are not finite"):
        store.get(one.media[0])
    with pytest.raises(ValueError, match="0.wav: cannot be encoded: audio clip 0: too short"):
        store.get(one.media[1])
    assert store.size_bytes() == 0


def test_num_frames_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_frames: got 0, expected at least 1"):
        FeatureStore(tmp_path, FakeEncoder(), num_frames=0)


def test_the_progress_bar_counts_clips(
    files: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FeatureStore(tmp_path / "store", FakeEncoder()).encode(clips(files), progress=True)
    assert "6/6" in capsys.readouterr().err
