"""Files, the tiny backbone to damage, and the backbone itself, on the meta device."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.language_model.backbone import Backbone, find_checkpoints, load_backbone
from model.moe.anchor_files import save_anchor
from model.moe.anchors import Anchor
from model.moe.expert_files import ExpertHeader, write_expert
from model.moe.experts import ExpertBank, ExpertConfig
from tests.unit.data.conftest import files

__all__ = ["files"]


@pytest.fixture
def checkpoints(repo_root: Path, tmp_path: Path) -> Path:
    """A copy of the tiny backbone, under the published names, that a test may damage."""
    return shutil.copytree(repo_root / "checkpoints" / "tiny", tmp_path / "checkpoints")


@pytest.fixture(scope="session")
def backbone(repo_root: Path) -> Backbone:
    """The tiny backbone without the LLM's weights."""
    paths, _ = find_checkpoints(repo_root / "checkpoints")
    return load_backbone(paths, shapes_only=True)


class Output:
    """Writes experts and anchors as a run does."""

    def __init__(self, folder: Path, backbone: Backbone) -> None:
        self.folder, self.backbone = folder, backbone

    def expert(self, task: int, identity: str | None = "same", **config: Any) -> Path:
        """A random expert for the LLM of the backbone."""
        made = ExpertConfig(**{"rank": 2, **config})
        bank = ExpertBank(self.backbone.llm, made)
        shapes = bank.expected_shapes()
        bank.detach()
        base = self.backbone.identity if identity == "same" else identity
        path = self.folder / "experts" / f"expert_task_{task}.pt"
        header = ExpertHeader(made.kind, made.rank, made.alpha, task, base, made.tokens)
        write_expert(path, header, {key: torch.ones(shape) for key, shape in shapes.items()})
        return path

    def anchor(self, task: int, kind: str = "question", **widths: int) -> Path:
        """A random anchor with statistics."""
        sizes = {"text": 192, "video": 128, "audio": 128, **widths}
        made = Anchor.from_features(
            task,
            {name: torch.rand(5, width) + task for name, width in sizes.items()},
            base_identity=self.backbone.identity,
            feature_kinds={"text": kind},
        )
        path = self.folder / "anchors" / f"anchor_task_{task}.pt"
        save_anchor(made, path)
        return path


@pytest.fixture
def output(tmp_path: Path, backbone: Backbone) -> Output:
    """Experts and anchors of tasks 0 and 1."""
    made = Output(tmp_path / "output", backbone)
    for task in (0, 1):
        made.expert(task)
        made.anchor(task)
    return made


@pytest.fixture
def payload() -> Callable[[Path], None]:
    """Writes a pickle that makes a folder when it is unpickled."""

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            import os

            return os.mkdir, ("must_not_exist",)

    return lambda path: torch.save({"w": Payload()}, path)
