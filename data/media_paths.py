"""From a path written in a sample file to a path on this machine.

Rules, in this order:

1. A relative path is taken below `media_root` where one is given, else below the folder of the sample file.
2. An absolute path that starts with `prefix` (given by the user) is the rest of it below `media_root`.
3. An absolute path is used as it is, with a `media_root` where it lies below it.
4. Published files hold absolute placeholders (`/path/to/dataset_QA/...`). With a `media_root` and no
   `prefix`, the leading components are dropped until the rest exists below `media_root`. Where exactly one
   way fits, the dropped part is remembered and used for every path that starts with it; where several fit,
   that is an error.

Where a `media_root` is given, nothing outside of it is ever opened: an absolute path, `..` or a link that
leads out of it is an error.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from data.problems import brief

LONGEST, LONGEST_NAME = 3000, 255  # bytes of a path, and of one name in it: what every system allows


class MediaPaths:
    """Resolves the media paths of one sample file.

    Args:
        folder: folder of the sample file.
        media_root: folder that holds the media, None for `folder`.
        prefix: leading part of absolute paths that stands for `media_root`, None to find it (rule 4).
    """

    def __init__(self, folder: Path, media_root: Path | None = None, prefix: str | None = None) -> None:
        if prefix is not None and media_root is None:
            raise ValueError(
                f"media_prefix {prefix!r} is given without media_root; give the folder it stands for"
            )
        self.folder = folder
        self.media_root = media_root
        self.prefix = None if prefix is None else PurePosixPath(prefix)
        self.found: list[PurePosixPath] = []  # dropped parts that rule 4 has settled
        self._real_root = None if media_root is None else os.path.realpath(media_root)
        self._inside: dict[Path, bool] = {}  # folder -> whether it really lies below the media root

    def resolve(self, text: str) -> Path:
        """Path of a media file; it may not exist.

        Raises ValueError where rule 4 fits in several ways, for a path that leads out of the media root, and
        for a text that cannot be a path.
        """
        try:
            parts = os.fsencode(text).split(b"/")
            usable = b"\0" not in text.encode() and max(map(len, parts)) <= LONGEST_NAME
            usable = usable and sum(map(len, parts)) + len(parts) <= LONGEST
        except UnicodeEncodeError:
            usable = False
        if not usable:
            raise ValueError(f"{brief(ascii(text))} cannot be a path; write the path of a file")
        path = self._place(text)
        if self._real_root is not None and not self._is_inside(path):
            raise ValueError(
                f"{brief(text)} leads to {brief(str(path))}, outside of the media root {self.media_root}; "
                "put the file below it, or give the folder that holds it as --media_root"
            )
        return path

    def _is_inside(self, path: Path) -> bool:
        """Whether the file itself lies below the media root once all links are followed."""
        if path.name == ".." or path.is_symlink():
            return self._below(os.path.realpath(path))
        if path.parent not in self._inside:
            self._inside[path.parent] = self._below(os.path.realpath(path.parent))
        return self._inside[path.parent]

    def _below(self, real: str) -> bool:
        assert self._real_root is not None
        return os.path.commonpath([real, self._real_root]) == self._real_root

    def _place(self, text: str) -> Path:
        written = PurePosixPath(text)
        if not written.is_absolute():
            return (self.media_root or self.folder) / written
        if self.media_root is None:
            return Path(written)
        if self.prefix is not None:
            below = written.is_relative_to(self.prefix)
            return self.media_root / written.relative_to(self.prefix) if below else Path(written)
        for dropped in self.found:
            if written.is_relative_to(dropped):
                return self.media_root / written.relative_to(dropped)
        if self._is_inside(Path(written)):
            return Path(written)
        return self._search(written, self.media_root)

    def _search(self, written: PurePosixPath, root: Path) -> Path:
        parts = written.parts  # ("/", "path", "to", ...)
        fits = [n for n in range(1, len(parts)) if (root / PurePosixPath(*parts[n:])).exists()]
        if not fits:
            return Path(written)
        if len(fits) > 1:
            ways = " and ".join(str(root / PurePosixPath(*parts[n:])) for n in fits)
            raise ValueError(
                f"{written} could be {ways}; set media_prefix to the part that stands for {root}"
            )
        self.found.append(PurePosixPath(*parts[: fits[0]]))
        return root / PurePosixPath(*parts[fits[0] :])
