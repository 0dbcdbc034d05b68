"""Media tags in a question: `<video>`, `<image>`, `<audio>`.

A media tag stands where the tokens of its medium are spliced into the prompt. Anything else that looks like a
tag, `<foo>` or a control token such as `</s>`, is refused by the reader: it would silently become ordinary
text or, worse, end the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

MediaKind = Literal["video", "image", "audio"]

TAG_KINDS: dict[str, MediaKind] = {"<video>": "video", "<image>": "image", "<audio>": "audio"}

_MEDIA_TAG = re.compile("(" + "|".join(TAG_KINDS) + ")")
_ANY_TAG = re.compile(r"</?[A-Za-z|][\w|.:-]*/?>|<0x[0-9A-Fa-f]{2}>")


def split_tags(text: str) -> list[str]:
    """Text pieces and media tags in turn: pieces at even positions (maybe empty), tags at odd ones."""
    return _MEDIA_TAG.split(text)


def tag_kinds(text: str) -> list[MediaKind]:
    """Kinds of the media tags in their order, such as ["video", "audio"]."""
    return [TAG_KINDS[tag] for tag in split_tags(text)[1::2]]


def starts_before_media(question: str) -> bool:
    """Whether something is asked before the last media tag, or between two."""
    return bool("".join(split_tags(question)[:-2:2]).strip())


def unknown_tags(text: str) -> list[str]:
    """Everything that looks like a tag and is none of the media tags."""
    return [tag for tag in _ANY_TAG.findall(text) if tag not in TAG_KINDS]


def remove_tags(text: str, drop: Callable[[int], bool] = lambda number: True) -> str:
    """Text without the media tags whose number (0, 1, ... in order) `drop` chooses, by default all of them.

    A line that held nothing but removed tags goes with them; other lines stay as they are.
    """
    number, lines = 0, []
    for line in text.split("\n"):
        pieces = split_tags(line)
        kept = [pieces[0]]
        removed = False
        for tag, piece in zip(pieces[1::2], pieces[2::2], strict=True):
            dropped = drop(number)
            removed = removed or dropped
            kept += [piece] if dropped else [tag, piece]
            number += 1
        joined = "".join(kept)
        if joined.strip() or not removed:
            lines.append(joined)
    return "\n".join(lines)
