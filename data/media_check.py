"""A check of all media before long work starts: every distinct file is decoded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data.decoding import MediaError, NoSoundError, read_picture, read_sound, read_video_frames
from data.media import frame_paths
from data.media_index import MediaIndex
from data.problems import InputError, Problem
from data.samples import Sample, is_picture


def check_media(
    samples: Sequence[Sample],
    *,
    index: MediaIndex | None = None,
    num_frames: int = 8,
    workers: int = 2,
    progress: bool = False,
) -> list[Problem]:
    """Decode every distinct media file once and return what is wrong: one problem per file.

    Args:
        samples: of any number of sample files; a problem names the first sample that uses the file.
        index: remembers files that were found good, so that they are not decoded again while unchanged.
        num_frames: as for load_frames; pictures that thinning leaves out are not read.
        workers: decoding threads.
        progress: show a progress bar.
    """
    users = media_files(samples, num_frames)
    index = index or MediaIndex(None)
    todo = [job for job in users if not index.is_checked(job[1], job[0])]
    problems: list[Problem] = []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        results: Iterable[str | None] = pool.map(_fault, todo)
        if progress and todo:
            from tqdm import tqdm

            results = tqdm(results, total=len(todo), desc="checking media", unit="file")
        for job, fault in zip(todo, results, strict=True):
            if fault is None:
                index.mark_checked(job[1], job[0])
                continue
            first, others = users[job][0], len({(user.source, user.index) for user in users[job]}) - 1
            more = f" (also used by {others} more samples)" if others else ""
            problems.append(Problem(first.source, fault + more, first.index, first.id))
    return problems


def media_files(samples: Sequence[Sample], num_frames: int = 8) -> dict[tuple[str, Path], list[Sample]]:
    """(decoder, file) -> samples that use it, for every distinct file that is read; decoder is one of
    "frames" (a video file), "picture" and "sound". Pictures that thinning leaves out are not read.
    """
    users: dict[tuple[str, Path], list[Sample]] = {}
    for sample in samples:
        for media in sample.media:
            paths = media.paths if media.kind == "audio" else frame_paths(media, num_frames)
            for path in paths:
                users.setdefault((_decoder(media.kind, path), path), []).append(sample)
    return users


def require_media(
    samples: Sequence[Sample],
    *,
    index: MediaIndex | None = None,
    num_frames: int = 8,
    workers: int = 2,
    progress: bool = False,
) -> None:
    """Raise InputError with everything that check_media finds."""
    problems = check_media(samples, index=index, num_frames=num_frames, workers=workers, progress=progress)
    if problems:
        raise InputError(problems)


def _decoder(kind: str, path: Path) -> str:
    if kind == "audio":
        return "sound"
    return "picture" if kind == "image" or is_picture(path) else "frames"


def _fault(job: tuple[str, Path]) -> str | None:
    """What is wrong with one file, None if nothing."""
    decoder, path = job
    try:
        if decoder == "sound":
            read_sound(path)
        elif decoder == "picture":
            read_picture(path)
        else:
            read_video_frames(path, 1)
    except NoSoundError as error:
        return f'{error}; or leave the sound out with missing_media "drop"'
    except MediaError as error:
        return str(error)
    return None
