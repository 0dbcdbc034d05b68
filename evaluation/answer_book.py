"""Answers that are kept: an append-only file of JSON lines, so that a restart goes on where a kill stopped
it.

An answer depends on the sample, the expert and the generation settings only; its key is a hash of the three.
The same answer therefore serves every stage, every router and every later run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data.files import append_line, read_json_lines, sha256_text


class AnswerBook:
    """Key -> answer text, in memory and on disk."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a torn last line is cut off.

        Raises:
            ValueError: the file holds something else.
        """
        self.path = path
        self._texts: dict[str, str] = {}
        for number, line in enumerate(read_json_lines(path), start=1):
            if not isinstance(line, dict) or not isinstance(line.get("key"), str) or "text" not in line:
                raise ValueError(
                    f"{path}, line {number}: expected {{'key', 'text'}}; delete the file to start it anew"
                )
            self._texts[line["key"]] = line["text"]
        path.parent.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, key: str) -> str | None:
        """The answer, or None if it is not known yet."""
        return self._texts.get(key)

    def add(self, key: str, text: str) -> None:
        """Keep an answer."""
        if key not in self._texts:
            self._texts[key] = text
            append_line(self.path, json.dumps({"key": key, "text": text}, ensure_ascii=False))


def answer_key(**parts: Any) -> str:
    """Hash of everything that an answer depends on."""
    return sha256_text(json.dumps(parts, sort_keys=True))
