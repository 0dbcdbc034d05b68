"""The readers that are fuzzed, each with small good files to start from."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from data.benchmark import read_benchmark
from data.decoding import NoSoundError, has_sound, read_picture, read_video_frames
from data.dense.folder import read_array
from data.media import load_waveform
from data.samples import Media, read_samples
from model.moe.anchor_files import load_anchor, save_anchor, stats_path
from model.moe.anchors import Anchor
from model.moe.expert_files import ExpertHeader, inspect_expert, read_expert, write_expert
from model.moe.files import read_tensor_file
from model.tensor_files import read_plain, read_tensors
from tests.faults.fuzz import Target, encoded, mutations, sample_files


def targets(folder: Path) -> list[Target]:
    """All readers; `folder` gets the good files."""
    folder.mkdir(parents=True, exist_ok=True)
    experts, safe, anchor = _weights(folder)
    stats = stats_path(anchor)
    media_root = folder / "media"
    media_root.mkdir(exist_ok=True)
    (media_root / "f0.jpg").touch()
    return [
        Target("samples", sample_files(), _samples(media_root), "samples.json", 0.3),
        Target(
            "benchmark", mutations([_benchmark(folder, media_root)]), read_benchmark, "benchmark.json", 0.05
        ),
        Target("pictures", mutations(_pictures()), read_picture, "picture.jpg", 0.2),
        Target("sounds", mutations(_sounds()), _waveform, "sound.wav", 0.12),
        Target("videos", mutations(_videos(folder)), _video, "video.mp4", 0.08),
        Target("pt", mutations(experts), _weights_file, "expert_task_0.pt", 0.06),
        Target("pt resealed", _resealed(experts), _weights_file, "expert_task_0.pt", 0.1),
        Target("safetensors", mutations(safe), _weights_file, "expert_task_0.safetensors", 0.04),
        Target("anchor stats", mutations([stats.read_bytes()]), _anchor(anchor), stats.name, 0.02),
        Target("npy", mutations(_arrays()), read_array, "array.npy", 0.03),
    ]


# -- samples


def _samples(media_root: Path) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        samples = read_samples(path, media_root=media_root)
        for sample in samples:  # what is read can be written with the results, and stays below the root
            json.dumps(sample.raw, ensure_ascii=False, indent=2).encode()
            for media in sample.media:
                for file in media.paths:
                    if not file.resolve().is_relative_to(media_root.resolve()):
                        raise AssertionError(f"{file} is outside of the media root")
        return samples

    return read


def _benchmark(folder: Path, media_root: Path) -> bytes:
    task = {"name": "Come", "results": "task0"}
    for split in ("train", "test"):
        (folder / f"{split}.json").touch()
        task[split] = str(folder / f"{split}.json")  # cases are read elsewhere
    tasks = [task, task | {"name": "Which", "results": "task1"}]
    return json.dumps({"name": "AVQA", "media_root": str(media_root), "tasks": tasks}).encode()


# -- media


def _pictures() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    picture, exif = Image.fromarray(noise), Image.Exif()
    exif[0x0112] = 6
    plain = [encoded(lambda f, kind=kind: picture.save(f, kind)) for kind in ("BMP", "GIF", "PPM", "WEBP")]
    packed = [
        encoded(lambda f, how=how: picture.save(f, "TIFF", compression=how)) for how in ("raw", "tiff_lzw")
    ]
    progressive = encoded(lambda f: picture.save(f, "JPEG", exif=exif, progressive=True))
    palette = encoded(lambda f: picture.convert("P").save(f, "PNG"))
    return [*plain, *packed, progressive, palette, encoded(lambda f: picture.save(f, "JPEG"))]


def _sounds() -> list[bytes]:
    tone = (0.3 * np.sin(np.arange(1200) / 7)).astype(np.float32)
    kinds = (
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("OGG", "VORBIS"),
        ("FLAC", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "ULAW"),
    )
    return [
        encoded(
            lambda f, kind=kind: soundfile.write(
                f, np.stack([tone, tone], 1), 22_050, kind[1], format=kind[0]
            )
        )
        for kind in kinds
    ]


def _waveform(path: Path) -> object:
    return load_waveform(Media("audio", (path,), True))


def _videos(folder: Path) -> list[bytes]:
    made = []
    for suffix, codec in ((".mp4", "mpeg4"), (".avi", "mpeg4"), (".mkv", "mpeg4")):
        path = folder / f"good{suffix}"
        with av.open(str(path), "w") as container:
            video, sound = container.add_stream(codec, rate=4), container.add_stream("mp2", rate=16_000)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            for number in range(4):
                frame = av.VideoFrame.from_ndarray(
                    np.full((32, 32, 3), 50 * number, np.uint8), format="rgb24"
                )
                container.mux(video.encode(frame))
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 2304), np.int16), format="s16", layout="mono")
            heard.sample_rate = 16_000
            container.mux(sound.encode(heard))
            container.mux(video.encode(None))
            container.mux(sound.encode(None))
        made.append(path.read_bytes())
    return made


def _video(path: Path) -> object:
    frames = read_video_frames(path, 2)
    return frames, has_sound(path) and _sound_or_none(path)


def _sound_or_none(path: Path) -> object:
    try:
        return _waveform(path)
    except NoSoundError:
        return None


# -- weights


def _weights(folder: Path) -> tuple[list[bytes], list[bytes], Path]:
    """Experts as .pt of three kinds and as safetensors; the path of an anchor."""
    keys = [f"model.layers.0.mlp.up_proj.lora_{half}.weight" for half in "AB"]
    tensors = {key: torch.randn(4, 4, generator=torch.Generator().manual_seed(0)) for key in keys}
    header = ExpertHeader("lora", 4, 8.0, 0, "base")
    for name in ("good.pt", "good.safetensors"):
        write_expert(folder / name, header, tensors)
    plain = encoded(lambda f: torch.save({"cfg": {"a": 1}, "model": tensors}, f))
    old = encoded(lambda f: torch.save(tensors, f, _use_new_zipfile_serialization=False))
    anchor = folder / "anchor_task_0.pt"
    save_anchor(Anchor.from_features(0, {"text": torch.randn(5, 3)}, base_identity="base"), anchor)
    pt = [(folder / "good.pt").read_bytes(), anchor.read_bytes(), plain, old]
    return pt, [(folder / "good.safetensors").read_bytes(), save(tensors)], anchor


def _resealed(good: list[bytes]) -> st.SearchStrategy[bytes]:
    """Archives whose pickle is changed and whose checksums fit again, as only a hostile file has them."""
    archives = [content for content in good if content.startswith(b"PK")]

    def change(content: bytes) -> st.SearchStrategy[bytes]:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        pickle = next(name for name in records if name.endswith("data.pkl"))
        return mutations([records[pickle]]).map(lambda changed: _archive(records | {pickle: changed}))

    return st.one_of([change(content) for content in archives])


def _archive(records: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _weights_file(path: Path) -> object:
    """As experts, anchors and encoders are read; the clearest refusal of the three is the last."""
    found: list[object] = []
    for read in (_expert, read_tensors, read_tensor_file if path.suffix != ".pt" else read_plain):
        try:
            found.append(read(path))
        except ValueError as error:
            if str(path) not in str(error):
                raise
            refused = error
    if not found:
        raise refused
    return found


def _expert(path: Path) -> object:
    return read_expert(path, inspect_expert(path).header)


def _anchor(good: Path) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        beside = path.with_name(good.name)
        if not beside.is_file():
            beside.write_bytes(good.read_bytes())
        return load_anchor(beside, 0, "base")

    return read


def _arrays() -> list[bytes]:
    arrays = (
        np.zeros((3, 4, 3), np.float32),
        np.arange(6).reshape(2, 3),
        np.zeros((2, 2), np.float64, order="F"),
    )
    return [encoded(lambda f, array=array: np.save(f, array)) for array in arrays]
