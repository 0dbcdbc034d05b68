"""Answers kept as they come, so that a restart goes on where a kill stopped it, with the same batches.

An answer depends on the sample, the expert and the generation settings only; its key is a hash of the three.
The same answer therefore serves every stage, every router and every later run.

    answers.jsonl          settled: answers of evaluations that have ended
    answers.rankR.jsonl    begun: what process R of an evaluation has answered so far

What is still to be answered, and in which batches, follows from the settled answers only. These do not change
before the end, when all begun answers are settled in the order of the plan, whoever gave them.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.files import append_line, only_run_for, read_sealed_lines, seal, sha256_text
from evaluation.ranks import Ranks

PATIENCE = 60.0  # seconds to wait for another process, which answers about a clip


def answers_beside(results: Path) -> Path:
    """Where the answers of one results file are kept; who writes this file holds it by this name."""
    return results.with_suffix(".answers.jsonl")


class AnswerBook:
    """Key -> answer text, in memory and on disk."""

    def __init__(self, path: Path, ranks: Ranks | None = None, *, shared: bool = False) -> None:
        """Read what is there; a torn last line is cut off, a damaged one is left out and answered again.

        shared: the caller holds no lock, and other processes may keep answers in the same file. Then the file
        is held while it is read and while answers are settled; ValueError where another holds it for long.
        """
        self.path, self.ranks, self.shared = path, ranks or Ranks(), shared
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._settled = _read(path)
            self._begun = self._read_begun()
        self.ranks.wait()  # nobody writes while others read

    def __len__(self) -> int:
        return len(self._settled.keys() | self._begun.keys())

    def get(self, key: str) -> str | None:
        """The answer, or None if it is not known yet."""
        return self._settled.get(key, self._begun.get(key))

    def is_settled(self, key: str) -> bool:
        """Whether the answer is one of an evaluation that has ended."""
        return key in self._settled

    def add(self, key: str, text: str) -> None:
        """Keep an answer in this process's file."""
        if self.get(key) is None:
            self._begun[key] = text
            append_line(self._begun_file(self.ranks.rank), _line(key, text))

    def settle(self, order: Sequence[str]) -> None:
        """Once all processes are here: settle all begun answers, those of `order` first, in that order."""
        with self._alone():
            self._settle(order)

    def _settle(self, order: Sequence[str]) -> None:
        self.ranks.wait()
        self._begun |= self._read_begun()
        self.ranks.wait()
        keys = dict.fromkeys([*(key for key in order if key in self._begun), *sorted(self._begun)])
        new = {key: self._begun[key] for key in keys if key not in self._settled}
        if self.ranks.first:
            if new:
                append_line(self.path, "\n".join(_line(key, text) for key, text in new.items()))
            for file in self._begun_files():
                file.unlink(missing_ok=True)
        self.ranks.wait()
        self._settled |= new
        self._begun = {}

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """No other process cuts off, takes over or removes what this one reads or writes; nobody has to be
        kept away where nothing can be written."""
        if self.shared and os.access(self.path.parent, os.W_OK):
            return only_run_for(self.path, PATIENCE)
        return contextlib.nullcontext()

    def _begun_file(self, rank: int | str) -> Path:
        return self.path.with_name(f"{self.path.stem}.rank{rank}{self.path.suffix}")

    def _begun_files(self) -> list[Path]:
        return sorted(self.path.parent.glob(self._begun_file("[0-9]*").name))

    def _read_begun(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        for file in self._begun_files():
            texts |= _read(file)
        return texts


def _read(path: Path) -> dict[str, str]:
    return {line["key"]: line["text"] for line in read_sealed_lines(path, {"key", "text"})}


def _line(key: str, text: str) -> str:
    return seal({"key": key, "text": text})


def answer_key(**parts: Any) -> str:
    """Hash of everything that an answer depends on."""
    return sha256_text(json.dumps(parts, sort_keys=True))
