"""Expert packs: `experts.pack`, beside expert files, lets a bank use a thousand LoRA experts without reading
them.

    held = packed_experts(paths)        # path -> PackedExpert; what is not in there is read as a file
    bank.add_packed({0: held[paths[0]], ...})

A pack holds nothing of its own: it is made from the expert files when they are opened, extended when some
are new or have changed, and may be deleted at any time. An expert costs its entry until it is used; then its
values are checked and read from the mapped file. Any number of processes may read while one appends.

Not in packs: full-MLP experts, experts whose file is there in both containers, and what a folder that cannot
be written lacks.
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from model.moe.expert_files import ExpertFile, ExpertHeader, check_header, check_shapes, inspect_expert
from model.moe.files import other_container
from model.moe.pack_files import Pack, Source, alone, make_pack, settled_stamp, sha256_of, stamp_of
from model.moe.pack_format import checksum

logger = logging.getLogger(__name__)

PACK = "experts.pack"


class PackedExpert:
    """One expert of a pack; its values are checked when they are first used."""

    def __init__(self, pack: Pack, row: int, path: Path):
        """See `packed_experts`."""
        self.path, self.entry, self.layout = path, pack.entries[row], pack.layout
        self._pack, self._row = pack, row
        self._values: Tensor | None = None

    @property
    def file(self) -> ExpertFile:
        """What the expert file says about itself and covers."""
        return ExpertFile(self.entry.header, *self._pack.sites)

    @property
    def sha256(self) -> str:
        """SHA-256 of the expert file."""
        return self.entry.sha256

    def check(self, wanted: ExpertHeader, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise a ValueError unless it is what `wanted` says, in these shapes; see `read_expert`."""
        check_header(self.path, self.entry.header, wanted)
        if self.layout.shapes != shapes:
            check_shapes(self.layout.shapes, shapes, str(self.path))

    def get(self, name: str) -> Tensor:
        """A tensor by its name in the bank, float32 on the CPU; not to be written to.

        Raises:
            ValueError: the values are damaged and the expert file has changed meanwhile.
        """
        if self._values is None:
            self._values = self._checked()
        start, shape = self.layout.places[name]
        return self._values[start : start + math.prod(shape)].view(shape)

    def versions(self, names: Sequence[str]) -> tuple[object, ...]:
        """As of `Expert`; the values of a row never change."""
        return (id(self),)

    def _checked(self) -> Tensor:
        values = self._pack.values(self._row)
        if values is not None and checksum(values) == self.entry.checksum:
            return values
        logger.warning(
            "%s: row %d (%s) is damaged; the expert file is read instead, the next start packs it anew",
            self._pack.path,
            self._row,
            self.path.name,
        )
        source = Source.read(self.path)
        if source.sha256 != self.sha256 or source.layout != self.layout:
            raise ValueError(
                f"{self.path}: changed since it was opened, and its row in {PACK} is damaged; start again"
            )
        self._pack.void(self._row)
        return self.layout.values(source.tensors)


def packed_experts(paths: Sequence[Path]) -> dict[Path, PackedExpert]:
    """The experts of these files as far as packs can hold them, their packs brought up to date.

    A folder that cannot be written serves what its pack has.

    Raises:
        ValueError: an expert file that a pack lacks is missing, damaged, or being written.
    """
    found: dict[Path, PackedExpert] = {}
    for folder in dict.fromkeys(path.parent for path in paths):
        wanted = _in_one_container([path for path in paths if path.parent == folder])
        held, fresh = _held(Pack.open(folder / PACK), wanted)
        found |= held if fresh else _updated(folder, wanted, held)
    return found


def _in_one_container(paths: Sequence[Path]) -> list[Path]:
    """Files without a twin in the other container, with which they would have to be compared."""
    names = set(os.listdir(paths[0].parent)) if paths[0].parent.is_dir() else set()
    twins = {path: other_container(path) for path in paths}
    return [path for path, twin in twins.items() if twin is None or twin.name not in names]


def _held(pack: Pack | None, wanted: Sequence[Path]) -> tuple[dict[Path, PackedExpert], bool]:
    """What a pack has of these files as they are now, and whether nothing is left to write."""
    held, fresh = {}, True
    for path in wanted:
        row = None if pack is None or not path.is_file() else pack.rows.get(path.name)
        if pack is None or row is None:
            fresh = False
            continue
        if pack.entries[row].stamp != stamp_of(path):
            unchanged = sha256_of(path) == pack.entries[row].sha256
            fresh &= unchanged and settled_stamp(path) is None
            if not unchanged:
                continue
        held[path] = PackedExpert(pack, row, path)
    return held, fresh


def _updated(
    folder: Path, wanted: Sequence[Path], held: dict[Path, PackedExpert]
) -> dict[Path, PackedExpert]:
    """What the pack holds after it was brought up to date, or `held` where it cannot be."""
    lora = [path for path in wanted if path in held or inspect_expert(path).header.kind == "lora"]
    if not lora:
        return {}
    try:
        with alone(folder):
            pack = Pack.open(folder / PACK)
            held, fresh = _held(pack, lora)  # another process may have been first
            if not fresh:
                _bring_up(folder / PACK, pack, lora, held)
        return _held(Pack.open(folder / PACK), lora)[0]
    except OSError as error:
        logger.info("%s: not up to date, experts are read from their files (%s)", folder / PACK, error)
        return held


def _bring_up(path: Path, pack: Pack | None, lora: Sequence[Path], held: Mapping[Path, PackedExpert]) -> None:
    """Append what the pack lacks; make it anew where its shapes are others or it is mostly waste."""
    missing = [expert for expert in lora if expert not in held]
    layout = Source.read(missing[0]).layout if missing else None
    if pack is not None and layout in (None, pack.layout):
        pack.restamp(list(held))
        if not missing:
            return
        if not pack.wasteful:
            pack.append(missing)
            return
    assert layout is not None
    make_pack(path, layout, lora)
