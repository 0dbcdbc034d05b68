"""Sample files: questions about media with their answers, in the published conversation format.

    [{"id": "q0", "conversations": [{"from": "human", "value": "<video>\\n<audio>\\nQUESTION"},
                                    {"from": "gpt", "value": "ANSWER"}],
      "video": ["f0.jpg", "f1.jpg"], "voice": ["a.wav"], "image": "i.png"}, ...]

* `id` may be left out (the position is used then) or be a number; ids are unique within a file.
* `video` is one video: a list of frames, or a video file; or a list of video files. `voice` and `image` are a
  path or a list of paths. A path with a picture's suffix is a frame; any other path under `video` is a video
  file.
* The n-th tag of a kind belongs to the n-th medium of that kind. A tag without a medium is an error. A medium
  without a tag takes part in routing but not in the prompt; one warning per file counts them.
* Where `voice` is absent, `<audio>` tags take the sound of the video files, in order. A video file's sound is
  not used where no `<audio>` tag asks for it.
* Paths: see media_paths.py. Whether media files exist and can be decoded is checked by
  data.media.check_media.
* `missing_media="drop"` leaves out an `<audio>` tag whose clip has no sound, and any tag that has no medium.

Reading opens no media (except for the headers of video files in the drop mode) and takes milliseconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data.benchmark import Benchmark, Task, read_benchmark, read_json
from data.media_paths import MediaPaths
from data.problems import InputError, Problem, brief
from data.tags import TAG_KINDS, MediaKind, remove_tags, tag_kinds, unknown_tags
from model.moe.json_text import strange_part

__all__ = [
    "Benchmark",
    "Media",
    "Sample",
    "Task",
    "is_picture",
    "is_video_file",
    "read_benchmark",
    "read_samples",
]

log = logging.getLogger(__name__)

MissingMedia = Literal["error", "drop"]

# Field of a sample -> kind of its media; also the order of media without a tag.
FIELDS: dict[str, MediaKind] = {"video": "video", "image": "image", "voice": "audio"}
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp")


@dataclass(frozen=True)
class Media:
    """One medium of a sample. An audio whose path is a video file is that file's own sound."""

    kind: MediaKind
    paths: tuple[Path, ...]  # several for a video given as frames, otherwise one
    tagged: bool  # False: used for routing only, not spliced into the prompt


@dataclass(frozen=True)
class Sample:
    """One question about some media, with its answer."""

    id: str
    index: int  # position in the file
    source: Path  # the sample file
    question: str  # human text with its tags, as in the file (less dropped tags)
    answer: str
    media: tuple[Media, ...]  # tagged ones in tag order, then the others in the order video, image, audio
    raw: Mapping[str, Any] = field(repr=False)  # the item as read, to be written back with results
    dropped: tuple[str, ...] = ()  # kinds left out by missing_media="drop", one entry per tag

    @property
    def question_text(self) -> str:
        """The question without its tags."""
        return remove_tags(self.question).strip()


def is_picture(path: Path) -> bool:
    """Whether a path names a picture (by its suffix)."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def is_video_file(path: Path) -> bool:
    """Whether a path names a video file (by its suffix)."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_samples(
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    media_prefix: str | None = None,
    missing_media: MissingMedia = "error",
) -> list[Sample]:
    """Read and check a sample file.

    Args:
        path: the JSON file.
        media_root: folder that relative media paths start from; the file's own folder where None.
        media_prefix: part of absolute paths that stands for `media_root` (media_paths.py).
        missing_media: "error", or "drop" to leave out tags whose clip has no sound or that have no medium.

    Raises:
        InputError: with every fault found, each naming file, index and id, and the samples without one.
    """
    path = Path(path)
    if missing_media not in ("error", "drop"):
        raise ValueError(f"missing_media: got {missing_media!r}, expected 'error' or 'drop'")
    content = read_json(path)
    if not isinstance(content, list) or not content:
        got = "an empty list" if content == [] else f"a JSON {type(content).__name__}"
        raise InputError([Problem(path, f"got {got}, expected a list of samples")])
    root = None if media_root is None else Path(media_root)
    reader = _Reader(path, MediaPaths(path.parent, root, media_prefix))
    samples = [reader.read(index, item, missing_media) for index, item in enumerate(content)]
    read = [sample for sample in samples if sample is not None]
    if reader.problems:
        raise InputError(reader.problems, readable=read)
    _report(path, read)
    return read


def _report(path: Path, samples: list[Sample]) -> None:
    untagged = sum(any(not media.tagged for media in sample.media) for sample in samples)
    if untagged:
        message = "%s: %d of %d samples have media without a tag: routed on, not spliced"
        log.warning(message, path, untagged, len(samples))
    dropped = sum(bool(sample.dropped) for sample in samples)
    if dropped:
        log.warning("%s: %d of %d samples have tags without media: left out", path, dropped, len(samples))


class _Reader:
    """Turns the items of one file into samples and collects what is wrong with them."""

    def __init__(self, path: Path, media_paths: MediaPaths) -> None:
        self.path = path
        self.media_paths = media_paths
        self.problems: list[Problem] = []
        self.seen: dict[str, int] = {}  # id -> index of the sample that has it
        self.sounding: dict[Path, bool] = {}  # file -> has sound, filled in the drop mode only

    def read(self, index: int, item: Any, missing_media: MissingMedia) -> Sample | None:
        """The sample, or None where a problem was recorded."""
        before = len(self.problems)
        if strange := strange_part(item):  # would be written back with the results
            self.problems.append(Problem(self.path, f"holds {strange}; correct it", index))
            return None
        if not isinstance(item, dict):
            self.problems.append(Problem(self.path, f"got {brief(item)}, expected an object", index))
            return None
        given_id = item.get("id")
        sample_id = str(index if given_id is None else given_id)

        def fault(message: str) -> None:
            self.problems.append(Problem(self.path, message, index, sample_id))

        self._check_id(given_id, sample_id, index, fault)
        question, answer = _turns(item.get("conversations"), fault)
        media = {kind: self._media(item, name, fault) for name, kind in FIELDS.items()}
        if len(self.problems) > before:
            return None
        tags = tag_kinds(question)
        if item.get("voice") is None:
            sounds = [paths for paths in media["video"] if not is_picture(paths[0])]
            media["audio"] = sounds[: tags.count("audio")]
        dropped: list[int] = []  # numbers of the tags that are left out
        tagged: list[Media] = []
        left = {kind: list(paths) for kind, paths in media.items()}
        for number, kind in enumerate(tags):
            paths = left[kind].pop(0) if left[kind] else None
            if paths is None and missing_media == "error":
                fault(_tag_without_media(kind, tags.count(kind), len(media[kind]), item))
                return None
            if paths is None or (missing_media == "drop" and kind == "audio" and not self._sounds(paths[0])):
                dropped.append(number)
            else:
                tagged.append(Media(kind, paths, True))
        untagged = [Media(kind, paths, False) for kind in FIELDS.values() for paths in left[kind]]
        shown = remove_tags(question, set(dropped).__contains__) if dropped else question
        kinds = tuple(tags[number] for number in dropped)
        return Sample(sample_id, index, self.path, shown, answer, (*tagged, *untagged), item, kinds)

    def _check_id(self, given: Any, sample_id: str, index: int, fault: Callable[[str], None]) -> None:
        fits = given is None or (isinstance(given, str | int) and not isinstance(given, bool))
        if not fits or not sample_id:
            fault(f"id: got {brief(given)}, expected a text, a number or nothing")
        elif sample_id in self.seen:
            fault(f"id {sample_id!r} is also that of index {self.seen[sample_id]}; make ids unique")
        else:
            self.seen[sample_id] = index

    def _media(self, item: dict[str, Any], name: str, fault: Callable[[str], None]) -> list[tuple[Path, ...]]:
        """Media of one field, each as its paths."""
        value = item.get(name)
        if value is None:
            return []
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t for t in texts):
            fault(f"{name}: got {brief(value)}, expected paths; leave {name} out where there is none")
            return []
        try:
            paths = [self.media_paths.resolve(text) for text in texts]
        except ValueError as error:
            fault(f"{name}: {error}")
            return []
        if name != "video":
            return [(path,) for path in paths]
        pictures = [is_picture(path) for path in paths]
        if any(pictures) and not all(pictures):
            fault(f"video: got frames and video files in one list, {brief(value)}; give one or the other")
        return [tuple(paths)] if all(pictures) else [(path,) for path in paths]

    def _sounds(self, path: Path) -> bool:
        from data.decoding import MediaError, has_sound

        if path not in self.sounding:
            try:
                self.sounding[path] = has_sound(path)
            except MediaError:
                self.sounding[path] = True  # missing or unreadable: check_media reports it
        return self.sounding[path]


def _turns(conversations: Any, fault: Callable[[str], None]) -> tuple[str, str]:
    """Question and answer of the two turns, checked."""
    texts = []
    if not isinstance(conversations, list) or len(conversations) != 2:
        got = f"{len(conversations)} turns" if isinstance(conversations, list) else brief(conversations)
        fault(f"conversations: got {got}, expected a list of two turns, human then gpt")
        return "", ""
    for turn, speaker, what in zip(conversations, ("human", "gpt"), ("question", "answer"), strict=True):
        if not isinstance(turn, dict) or turn.get("from") != speaker:
            got = repr(turn.get("from")) if isinstance(turn, dict) else brief(turn)
            fault(f'conversations: got {got} as the {what}, expected {{"from": "{speaker}", "value": ...}}')
            return "", ""
        value = turn.get("value")
        if not isinstance(value, str):
            fault(f"{what}: got {brief(value)}, expected a text")
            value = "?"
        elif not remove_tags(value).strip():
            fault(f"{what}: is empty; write the {what} or remove the sample")
        elif unknown_tags(value):
            known = " ".join(TAG_KINDS)
            fault(f"{what}: unknown tag {unknown_tags(value)[0]} in {brief(value)}; known are {known}")
        elif what == "answer" and tag_kinds(value):
            fault(f"answer: got a media tag in {brief(value)}; tags belong into the question")
        texts.append(value)
    return texts[0], texts[1]


def _tag_without_media(kind: str, tags: int, media: int, item: Mapping[str, Any]) -> str:
    name = next(name for name, field_kind in FIELDS.items() if field_kind == kind)
    message = f"got {tags} <{kind}> in the question, {media} under {name!r}; add the path or remove the tag"
    if kind == "audio" and "audio" in item:
        message += "; the field for sound is 'voice', not 'audio'"
    return message
