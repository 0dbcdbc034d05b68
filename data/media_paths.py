"""From a path written in a sample file to a path on this machine.

Rules, in this order:

1. A relative path is taken below `media_root` where one is given, else below the folder of the sample file.
2. An absolute path that starts with `prefix` (given by the user) is the rest of it below `media_root`.
3. An absolute path that exists is used as it is.
4. Published files hold absolute placeholders (`/path/to/dataset_QA/...`). With a `media_root` and no
   `prefix`, the leading components are dropped until the rest exists below `media_root`. Where exactly one
   way fits, the dropped part is remembered and used for every path that starts with it; where several fit,
   that is an error.
5. Any other absolute path is kept as it is and reported as missing when media are checked.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath


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

    def resolve(self, text: str) -> Path:
        """Path of a media file; it may not exist. Raises ValueError where rule 4 fits in several ways."""
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
        if Path(written).exists():
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
