"""The questions: counts, answers, texts that two tasks share, test clips that training has seen."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from data.benchmark import SPLITS, Benchmark, Task, read_benchmark
from data.doctor.findings import Level, Section
from data.media_index import MediaIndex
from data.problems import InputError
from data.samples import Media, MissingMedia, Sample, read_samples


@dataclass(frozen=True)
class Questions:
    """All questions of a benchmark that can be read."""

    benchmark: Benchmark
    groups: Mapping[tuple[int, str], Sequence[Sample]]  # (task id, split) -> questions

    def of(self, *splits: str) -> list[Sample]:
        """Questions of these splits, task after task."""
        return [s for (_, split), samples in self.groups.items() if split in splits for s in samples]

    @property
    def all(self) -> list[Sample]:
        """Every question."""
        return self.of(*SPLITS)


def read_questions(
    section: Section,
    path: Path,
    *,
    media_root: Path | None = None,
    media_prefix: str | None = None,
    missing_media: MissingMedia = "error",
) -> Questions | None:
    """Read the benchmark and all its sample files, adding every fault; None where nothing can be read."""
    try:
        benchmark = read_benchmark(path)
    except InputError as error:
        section.add_grouped(Level.PROBLEM, map(str, error.problems))
        if not error.readable:
            return None
        [benchmark] = error.readable
    groups: dict[tuple[int, str], Sequence[Sample]] = {}
    read: dict[Path, Sequence[Sample]] = {}
    faults: list[str] = []
    with section.hearing():
        for task in benchmark.tasks:
            for split in SPLITS:
                file = getattr(task, split)
                if file is None or not file.is_file():
                    continue
                if file not in read:
                    try:
                        read[file] = read_samples(
                            file,
                            media_root=media_root or benchmark.media_root,
                            media_prefix=media_prefix or benchmark.media_prefix,
                            missing_media=missing_media,
                        )
                    except InputError as error:
                        read[file] = error.readable
                        faults += map(str, error.problems)
                groups[task.id, split] = read[file]
    section.add_grouped(Level.PROBLEM, faults)
    return Questions(benchmark, groups)


def check_questions(section: Section, questions: Questions) -> None:
    """Counts and answers as a table; splits that are missing or empty, shared texts, repeated questions."""
    section.table.append(
        ["task", *SPLITS, "clips", "answers", "most frequent", "of test", "new answers in test"]
    )
    for task in questions.benchmark.tasks:
        section.table.append(_row(section, questions, task))
        if not questions.groups.get((task.id, "test")):
            section.add(Level.WARNING, f"task {task.id}", "no test questions: it cannot be evaluated")
        if not questions.groups.get((task.id, "train")):
            section.add(
                Level.WARNING, f"task {task.id}", "no training questions: only given experts answer it"
            )
    for split in SPLITS:
        texts = [
            [sample.question_text for sample in questions.groups.get((task.id, split), ())]
            for task in questions.benchmark.tasks
        ]
        _shared_texts(section, split, texts)
    repeated = [
        f"{group[0].source}, indices {', '.join(str(sample.index) for sample in group)}"
        for group in _grouped(questions.all)
        if len(group) > 1
    ]
    if repeated:
        section.add(
            Level.NOTE,
            "questions",
            f"{len(repeated)} occur more than once with the same clip and answer in one file",
            repeated,
        )


def _row(section: Section, questions: Questions, task: Task) -> list[str]:
    groups = {split: questions.groups.get((task.id, split), ()) for split in SPLITS}
    answers = {split: Counter(sample.answer for sample in group) for split, group in groups.items()}
    known, test = answers["train"], answers["test"]
    clips = {clip(sample) for group in groups.values() for sample in group}
    new = sum(count for answer, count in test.items() if answer not in known)
    asked = sum(test.values())
    top, count = test.most_common(1)[0] if test else ("-", 0)
    section.facts.setdefault("answers", {})[task.name] = {
        split: dict(counts.most_common()) for split, counts in answers.items()
    }
    section.facts.setdefault("questions", {})[task.name] = {
        split: len(group) for split, group in groups.items()
    }
    return [
        f"{task.id} {task.name}",
        *(str(len(groups[split])) for split in SPLITS),
        str(len(clips)),
        str(len(set().union(*answers.values()))),
        top if len(top) <= 20 else f"{top[:17]}...",
        f"{_percent(count, asked)}",
        f"{new} ({_percent(new, asked)})" if known else "-",
    ]


def _shared_texts(section: Section, split: str, texts: Sequence[Sequence[str]]) -> None:
    """Texts that several tasks ask: no router can tell those by the question alone."""
    counts: dict[str, Counter[int]] = {}
    for task, asked in enumerate(texts):
        for text in asked:
            counts.setdefault(text, Counter())[task] += 1
    shared = {text: tasks for text, tasks in counts.items() if len(tasks) > 1}
    total = sum(map(len, texts))
    section.facts.setdefault("text_routing_bound", {})[split] = text_bound(texts) if total else None
    if not shared:
        return
    cases = [f"{text!r}: tasks {', '.join(map(str, sorted(tasks)))}" for text, tasks in shared.items()]
    affected = sum(sum(tasks.values()) for tasks in shared.values())
    section.add(
        Level.WARNING if split == "test" else Level.NOTE,
        split,
        f"same text in several tasks: {len(shared)} texts, {_percent(affected, total)} of the questions; "
        f"routing by text alone is right for at most {text_bound(texts)['micro']:.1f} %",
        cases,
    )


def text_bound(texts: Sequence[Sequence[str]]) -> dict[str, float]:
    """Highest macro and highest micro accuracy, in percent, that a function of the exact text can have in
    telling tasks apart; `texts` are the questions of each task. Tasks without questions do not count.
    """
    asked_by = [asked for asked in texts if asked]
    counts: dict[str, Counter[int]] = {}
    for task, asked in enumerate(asked_by):
        for text in asked:
            counts.setdefault(text, Counter())[task] += 1
    sizes = [len(asked) for asked in asked_by]
    macro = sum(max(count / sizes[task] for task, count in tasks.items()) for tasks in counts.values())
    micro = sum(max(tasks.values()) for tasks in counts.values())
    return {"macro": 100 * macro / len(sizes), "micro": 100 * micro / sum(sizes)}


Clip = tuple[tuple[str, tuple[str, ...]], ...]


def clip(sample: Sample, content: Mapping[Path, str] | None = None) -> Clip:
    """What a sample shows and plays: kind and files of its media, or the files' hashes where known."""
    known = content or {}
    return tuple(
        (media.kind, tuple(known.get(path, str(path)) for path in media.paths)) for media in sample.media
    )


def content_hashes(samples: Iterable[Sample], index: MediaIndex) -> dict[Path, str]:
    """SHA-256 of every media file that can be read, hashed on all cores."""
    paths = list(dict.fromkeys(path for sample in samples for media in sample.media for path in media.paths))

    def digest(path: Path) -> str | None:
        try:
            return index.content_hash(path)
        except OSError:
            return None  # missing or unreadable: reported by check_media

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashed = zip(paths, pool.map(digest, paths), strict=True)
        return {path: value for path, value in hashed if value is not None}


def check_leaks(section: Section, questions: Questions, index: MediaIndex | None) -> None:
    """Test and validation questions whose clip training also shows.

    Args:
        index: compares clips by content, so that a copy under another name is found; None: by path.
    """
    content = content_hashes(questions.of("train", "val", "test"), index) if index else None
    seen: dict[tuple[str, tuple[str, ...]], Sample] = {}
    asked: set[tuple[Clip, str]] = set()
    for sample in questions.of("train"):
        key = clip(sample, content)
        seen = dict.fromkeys(key, sample) | seen
        asked.add((key, sample.question_text))
    for split in ("test", "val"):
        group = questions.of(split)
        keys = {id(sample): clip(sample, content) for sample in group}
        known = [sample for sample in group if any(medium in seen for medium in keys[id(sample)])]
        if not known:
            continue
        same = sum((keys[id(sample)], sample.question_text) in asked for sample in known)
        cases = []
        for sample in known:
            first = next(seen[medium] for medium in keys[id(sample)] if medium in seen)
            cases.append(f"{_place(sample)} shows a clip of {_place(first)}")
        how = "content" if index else "path"
        section.add(
            Level.WARNING,
            split,
            f"{len(known)} of {len(group)} questions are about clips (same {how}) that training also shows, "
            f"{same} of them word for word as in training: their accuracy says little about new clips",
            cases,
        )
    section.facts["leaks_compared_by"] = "content" if index else "path"


def distinct_clips(samples: Iterable[Sample]) -> list[Media]:
    """Every distinct medium, as the feature store counts them."""
    return list(dict.fromkeys(replace(media, tagged=True) for sample in samples for media in sample.media))


def _grouped(samples: Sequence[Sample]) -> Iterable[list[Sample]]:
    groups: dict[tuple[Path, Clip, str, str], dict[int, Sample]] = {}
    for sample in samples:
        key = (sample.source, clip(sample), sample.question_text, sample.answer)
        groups.setdefault(key, {})[sample.index] = sample  # a file that two tasks share is read once
    return [list(group.values()) for group in groups.values()]


def _place(sample: Sample) -> str:
    return f"{sample.source.name}, index {sample.index}, id {sample.id!r}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"
