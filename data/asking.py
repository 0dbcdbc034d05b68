"""A sample from a clip and a question, for asking about media that are in no sample file."""

from __future__ import annotations

from pathlib import Path

from data.media import has_sound
from data.samples import Media, Sample, is_picture, is_video_file
from data.tags import tag_kinds, unknown_tags


def clip_sample(
    question: str,
    *,
    video: str | Path | None = None,
    audio: str | Path | None = None,
    image: str | Path | None = None,
) -> Sample:
    """The sample `<video> <image> <audio> question` over the media given.

    A video's own sound is used where `audio` is not given and the video has one.

    Raises:
        ValueError: no medium, a file that is not there, an empty question, or one with tags.
    """
    media = []
    if not question.strip():
        raise ValueError("the question is empty; ask something about the clip")
    if tags := [*tag_kinds(question), *unknown_tags(question)]:
        raise ValueError(f"the question {question!r} has the tag {tags[0]}; leave tags out, they are added")
    for kind, path in (("video", video), ("image", image), ("audio", audio)):
        if path is not None and not Path(path).is_file():
            raise ValueError(f"{path}: no such file; check the path of the {kind}")
    if video is not None:
        media.append(Media("video", (Path(video),), True))
        if audio is None and has_sound(Path(video)):
            audio = video
    if image is not None:
        media.append(Media("image", (Path(image),), True))
    if audio is not None:
        media.append(Media("audio", (Path(audio),), True))
    if not media:
        raise ValueError("nothing to ask about; give a video, an image or an audio file")
    heads = "".join(f"<{item.kind}>\n" for item in media)
    return Sample("clip", 0, Path("clip"), f"{heads}{question}", "", tuple(media), {"question": question})


def medium_kind(path: Path) -> str:
    """What a file is by its suffix: video, image or audio."""
    if is_video_file(path):
        return "video"
    return "image" if is_picture(path) else "audio"
