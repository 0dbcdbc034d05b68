"""Two tasks of the sample data on the tiny backbone, with random experts, and their export."""

from pathlib import Path

import pytest
import torch

from data.benchmark import read_benchmark
from data.feature_store import FeatureStore
from data.inputs import Inputs
from data.samples import read_samples
from model.language_model.backbone import Backbone, find_checkpoints, load_backbone
from model.moe.anchor_files import save_anchor
from model.moe.experts import ExpertBank, ExpertConfig
from tests.unit.scripts.exporting import TASKS, export


@pytest.fixture(scope="session")
def backbone(repo_root: Path) -> Backbone:
    return load_backbone(find_checkpoints(repo_root / "checkpoints")[0])


@pytest.fixture(scope="session")
def inputs(repo_root: Path, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(backbone, FeatureStore(tmp_path_factory.mktemp("store"), backbone.encoder), quiet=True)


@pytest.fixture(scope="session")
def trained(
    repo_root: Path, backbone: Backbone, inputs: Inputs, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """experts/ and anchors/ of two tasks of the sample data; the experts are random."""
    root = tmp_path_factory.mktemp("trained")
    benchmark = read_benchmark(repo_root / "data_sample" / "avqa.json")
    for tokens in ("all", "answer"):
        bank = ExpertBank(backbone.llm, ExpertConfig(rank=4, alpha=6.0, tokens=tokens), backbone.identity)
        generator = torch.Generator().manual_seed(0)
        for task in TASKS:
            bank.add(task, generator=generator)
            state = bank.state(task)
            bank.load_state(
                task, {k: v + 0.05 * torch.randn(v.shape, generator=generator) for k, v in state.items()}
            )
            bank.save(task, root / tokens / f"expert_task_{task}.pt")
        bank.detach()
    for task in TASKS:
        path = benchmark.tasks[task].test
        assert path is not None
        samples = read_samples(path)[:3]
        inputs.encode(samples)
        save_anchor(inputs.anchor(task, samples), root / "anchors" / f"anchor_task_{task}.pt")
    return root


@pytest.fixture(scope="session")
def work(repo_root: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the repository after the guide's export."""
    root = tmp_path_factory.mktemp("work")
    for name in ("checkpoints", "data_sample"):
        (root / name).symlink_to(repo_root / name)
    flags = ["--save_llm", str(root / "output" / "llm"), "--base_model", "owner/llm", "--license", "mit"]
    export(repo_root, trained, root / "output" / "peft", *flags)
    return root


@pytest.fixture(scope="session")
def peft_folder(work: Path) -> Path:
    return work / "output" / "peft"
