"""Each distinct clip goes through the frozen towers once, ever; tokens and routing means are kept on disk.

A clip's file is named by the SHA-256 of everything that decides its content: content hashes of its media
files in order, decoding rules, frame count of a video file, fingerprint of tower and projector or aligner
(which covers weights, preprocessing and window) and the stored dtype. Moved, copied and shared clips are
found again; a changed file, tower or setting is encoded anew.

    ROOT/media_index.jsonl            content hashes and checked files by path, size and time (media_index.py)
    ROOT/ab/abcd....safetensors       "tokens" (T, D), "routing" (W,), a checksum
    ROOT/writing/                     files being written; renamed when complete

How files survive kills, other processes and damage: feature_files.py. Everything can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from data.feature_files import FeatureFiles, FeatureMemory
from data.media import DECODING, MediaError, frame_paths, load_frames, load_waveform
from data.media_index import MediaIndex
from data.samples import Media, Sample, is_picture
from model.encoders.features import MediaFeatures

Item = TypeVar("Item")
Result = TypeVar("Result")


class Encoder(Protocol):
    """What the store needs of model.encoders.features.MediaEncoder."""

    @property
    def vision_fingerprint(self) -> str: ...
    @property
    def audio_fingerprint(self) -> str: ...
    def preprocess_frames(self, images: Sequence[Any]) -> Tensor: ...
    def encode_frames(self, clips: Sequence[Tensor]) -> list[MediaFeatures]: ...
    def encode_audio(self, waveforms: Sequence[Tensor]) -> list[MediaFeatures]: ...


class FeatureStore:
    """Encoded clips on disk, with the most recent ones in memory.

    Args:
        root: folder of the store, made when first written to.
        encoder: frozen towers; their fingerprints are read once.
        num_frames: frames per video.
        dtype: of stored tokens (routing vectors stay float32); None keeps what the encoder gives.
        memory_bytes: bound of the features held in memory.
        workers: threads that decode ahead of the encoder.
    """

    def __init__(
        self,
        root: str | Path,
        encoder: Encoder,
        *,
        num_frames: int = 8,
        dtype: torch.dtype | None = None,
        memory_bytes: int = 2**30,
        workers: int = 2,
    ) -> None:
        if num_frames < 1:
            raise ValueError(f"num_frames: got {num_frames}, expected at least 1")
        self.root = Path(root)
        self.encoder = encoder
        self.num_frames = num_frames
        self.dtype = dtype
        self.workers = workers
        self.index = MediaIndex(self.root / "media_index.jsonl")
        self._fingerprints = {"frames": encoder.vision_fingerprint, "sound": encoder.audio_fingerprint}
        self._files = FeatureFiles(self.root)
        self._memory = FeatureMemory(memory_bytes)

    def key(self, media: Media) -> str:
        """SHA-256 of all that decides the clip's features. Raises MediaError for a missing file."""
        modality = _modality(media)
        paths = media.paths if modality == "sound" else frame_paths(media, self.num_frames)
        try:
            hashes = [self.index.content_hash(path) for path in paths]
        except OSError as error:
            message = f"{error.filename}: {error.strerror}; check the path and the media root"
            raise MediaError(message) from error
        is_file = media.kind == "video" and not is_picture(media.paths[0])
        frames = self.num_frames if is_file else None
        facts = [modality, self._fingerprints[modality], DECODING, frames, str(self.dtype), hashes]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def get(self, media: Media) -> MediaFeatures:
        """Features of one clip, on the CPU; encoded now if they are not in the store. Raises MediaError."""
        key = self.key(media)
        found = self._memory.get(key) or self._files.read(key)
        if found is None:
            [(_, found)] = self._encode_group([(key, media, self._decode(media))])
        self._memory.put(key, found)
        return found

    def missing(self, samples: Iterable[Sample]) -> dict[str, Media]:
        """Distinct clips that are not in the store, by key: frames first, then in order of first use."""
        return {key: media for key, media in self._wanted(samples).items() if not self._files.holds(key)}

    def _wanted(self, samples: Iterable[Sample]) -> dict[str, Media]:
        """Distinct clips of the samples, by key: frames first, then in order of first use."""
        clips = list(
            dict.fromkeys(replace(media, tagged=True) for sample in samples for media in sample.media)
        )
        with ThreadPoolExecutor(self.workers) as pool:
            keyed = dict(zip(pool.map(self.key, clips), clips, strict=True))
        return dict(sorted(keyed.items(), key=lambda item: _modality(item[1])))

    def encode(
        self,
        samples: Iterable[Sample],
        *,
        batch_size: int = 1,
        progress: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> int:
        """Encode what is missing and return how many clips that were.

        With batch_size 1 the stored bits depend on the clip only. Of several processes, all with the same
        samples, each takes the share `rank` of `world`, as many frames and sounds as the others but for
        one; wait for all of them before reading.

        Raises:
            MediaError: a clip cannot be decoded; what was encoded before stays.
            OSError: the store cannot be written.
        """
        # Shares of all clips: what is missing shrinks while others write.
        share = list(self._wanted(samples).items())[rank::world]
        todo = [(key, media) for key, media in share if not self._files.holds(key)]
        if not todo:
            return 0
        self._files.sweep()
        from tqdm import tqdm

        with (
            ThreadPoolExecutor(self.workers) as pool,
            tqdm(total=len(todo), desc="encoding clips", unit="clip", disable=not progress) as bar,
        ):
            depth = self.workers + batch_size
            decoded = _ahead(pool, lambda item: (*item, self._decode(item[1])), todo, depth)
            for group in _groups(decoded, batch_size):
                for key, features in self._encode_group(group):
                    self._memory.put(key, features)
                bar.update(len(group))
        return len(todo)

    def size_bytes(self) -> int:
        """Bytes of all stored features."""
        return self._files.size_bytes()

    def _decode(self, media: Media) -> Tensor:
        """Frames (F, 3, H, W) or waveform (n,)."""
        if _modality(media) == "sound":
            return torch.from_numpy(load_waveform(media))
        return self.encoder.preprocess_frames(load_frames(media, self.num_frames))

    def _encode_group(self, group: Sequence[tuple[str, Media, Tensor]]) -> list[tuple[str, MediaFeatures]]:
        """Encode clips of one modality in one call and store them."""
        sound = _modality(group[0][1]) == "sound"
        call = self.encoder.encode_audio if sound else self.encoder.encode_frames
        try:
            made_of = call([tensor for _, _, tensor in group])
        except ValueError as error:
            names = ", ".join(str(media.paths[0]) for _, media, _ in group)
            raise ValueError(f"{names}: cannot be encoded: {error}") from error
        encoded = []
        for (key, media, _), made in zip(group, made_of, strict=True):
            if not (torch.isfinite(made.tokens).all() and torch.isfinite(made.routing).all()):
                raise ValueError(
                    f"{media.paths[0]}: the {media.kind} encoder gives values that are not finite"
                )
            tokens = made.tokens.to("cpu", self.dtype or made.tokens.dtype).contiguous()
            features = MediaFeatures(tokens, made.routing.to("cpu", torch.float32).contiguous())
            self._files.write(key, features)
            encoded.append((key, features))
        return encoded


def _modality(media: Media) -> str:
    return "sound" if media.kind == "audio" else "frames"


def _groups(
    clips: Iterable[tuple[str, Media, Tensor]], size: int
) -> Iterator[list[tuple[str, Media, Tensor]]]:
    """Up to `size` neighbours of one modality at a time."""
    group: list[tuple[str, Media, Tensor]] = []
    for clip in clips:
        if group and _modality(group[0][1]) != _modality(clip[1]):
            yield group
            group = []
        group.append(clip)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Iterator[Result]:
    """Results of `work` in order, with at most `depth` items begun before their result is taken."""
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
