"""The media: missing, unreadable, without sound, how long. Every file is decoded once, on all cores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from data.decoding import MediaError, seconds
from data.doctor.findings import Level, Section
from data.media_check import check_media, media_files
from data.media_index import MediaIndex
from data.problems import Problem
from data.samples import Sample


def spread(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """`count` of the samples, evenly spread; all of them for None."""
    if count is None or count >= len(samples):
        return list(samples)
    return [samples[(2 * place + 1) * len(samples) // (2 * count)] for place in range(count)]


def check_media_files(
    section: Section,
    samples: Sequence[Sample],
    index: MediaIndex,
    *,
    num_frames: int,
    sample: int | None = None,
    longest: float,
    progress: bool = False,
) -> tuple[bool, dict[Path, float]]:
    """Check the media; returns whether all are there and good, and the length of sounds in seconds.

    Args:
        sample: decode the media of so many questions only; that files exist is checked for all.
        longest: seconds of sound that are used of a clip.
    """
    chosen = spread(samples, sample)
    cores = os.cpu_count() or 1
    faults = check_media(chosen, index=index, num_frames=num_frames, workers=cores, progress=progress)
    problems = list(dict.fromkeys(faults))  # a video file may be faulty as a video and as a sound
    decoded = media_files(chosen, num_frames)
    everything = media_files(samples, num_frames)
    with ThreadPoolExecutor(4 * cores) as pool:  # waiting for the file system, not for the processor
        rest = [job for job in everything if job not in decoded]
        there = list(pool.map(lambda job: job[1].is_file(), rest))
    for job, exists in zip(rest, there, strict=True):
        if not exists:
            first, message = everything[job][0], f"{job[1]}: no such file; check the path and the media root"
            problems.append(Problem(first.source, message, first.index, first.id))
    section.add_grouped(Level.PROBLEM, map(str, problems))
    count = {name: sum(decoder == name for decoder, _ in decoded) for name in ("frames", "picture", "sound")}
    named = {"frames": "video files", "picture": "pictures", "sound": "sounds"}
    what = ", ".join(f"{named[name]} {count[name]}" for name in count if count[name]) or "nothing"
    if len(chosen) < len(samples):
        what += f" (of {len(chosen)} of {len(samples)} questions, --sample)"
    if problems:
        section.add(Level.NOTE, "looked at", f"{what}; faulty files: {len(problems)}")
    else:
        section.add(Level.OK, "decoded without fault", what)
    lengths = _lengths(decoded, cores)
    _describe_lengths(section, decoded, lengths, longest)
    return not problems, {path: length for (name, path), length in lengths.items() if name == "sound"}


def _lengths(files: Mapping[tuple[str, Path], object], workers: int) -> dict[tuple[str, Path], float]:
    """(decoder, file) -> seconds, where the header says."""

    def ask(job: tuple[str, Path]) -> float | None:
        try:
            return seconds(job[1])
        except MediaError:
            return None  # reported by check_media

    timed = [job for job in files if job[0] != "picture"]
    with ThreadPoolExecutor(workers) as pool:
        answers = zip(timed, pool.map(ask, timed), strict=True)
        return {job: length for job, length in answers if length is not None}


def _describe_lengths(
    section: Section,
    files: Mapping[tuple[str, Path], Sequence[Sample]],
    lengths: Mapping[tuple[str, Path], float],
    longest: float,
) -> None:
    for decoder, what in (("frames", "videos"), ("sound", "sounds")):
        values = sorted(length for (name, _), length in lengths.items() if name == decoder)
        if values:
            section.add(
                Level.NOTE,
                what,
                f"{values[0]:.1f} to {values[-1]:.1f} s, median {median(values):.1f} s, "
                f"{sum(values) / 3600:.2f} hours together",
            )
            section.facts[f"{decoder}_seconds"] = {
                str(path): length for (name, path), length in lengths.items() if name == decoder
            }
    cut = [
        f"{path}: {length:.1f} s"
        for (name, path), length in lengths.items()
        if name == "sound" and length > longest
    ]
    if cut:
        section.add(Level.WARNING, "sounds", f"{len(cut)} are longer than the {longest:.0f} s in use", cut)
