"""docs/serving.md: its Python runs as it stands, its commands and paths exist."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import scripts.export_peft as command
from data.asking import clip_sample
from data.samples import Sample
from evaluation.serving import Front
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import Backbone
from model.moe.experts import ExpertBank
from model.moe.peft_adapters import read_adapter
from model.moe.routing import Router, RouterConfig, RoutingFeatures

# PEFT reads a name that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def python_blocks(page: str) -> Iterator[str]:
    """Python blocks of a page; those that say so are not run."""
    for block in re.findall(r"```python\n(.*?)```", page, re.S):
        ast.parse(block)
        if not block.startswith("# not run here"):
            yield block


def test_the_code_of_the_guide_runs(
    repo_root: Path, work: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    names: dict[str, Any] = {}
    blocks = list(python_blocks((repo_root / "docs" / "serving.md").read_text()))
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "docs/serving.md", "exec"), names)
    front, request = names["front"], names["request"]
    sample = clip_sample("Where does the video take place?", video="data_sample/media/test079.mp4")
    [task] = Router(front.router.router.anchors, RouterConfig()).route(inputs_of(front, sample)).task_ids
    assert request.adapter == front.router.deployment.adapters[task]
    file, state = read_adapter(work / "output" / "peft" / request.adapter)
    batch = front.inputs.batch([sample], with_answers=False)
    for tokens in ("all", "answer"):
        config = replace(file.config, tokens=tokens)
        bank = ExpertBank(backbone.llm, config, backbone.identity)
        bank.load_state(task, state)
        lm = AnchorLM(backbone.llm, bank)
        with torch.no_grad():
            if tokens == "all":
                [expected] = lm.logits(batch, [task])
                assert (names["logits"][0] - expected).abs().max() < 1e-4 * expected.abs().max()
            else:
                eos = backbone.llm.config.eos_token_id
                [ids] = lm.generate(batch, [task], 32, eos)
                assert [token for token in names["answer"] if token != eos] == ids and len(ids) > 0
        bank.detach()


def inputs_of(front: Front, sample: Sample) -> RoutingFeatures:
    front.inputs.encode([sample])
    return front.inputs.routing([sample])


def test_the_guide_names_what_exists(repo_root: Path, work: Path) -> None:
    page = (repo_root / "docs" / "serving.md").read_text()
    for flags in re.findall(r"python scripts/export_peft\.py (.*?)\n```", page, re.S):
        command.parser().parse_args(flags.replace("\\\n", " ").split())
    for script in re.findall(r"(?:python|bash) (\S+\.(?:py|sh))", page):
        assert (repo_root / script).is_file(), script
    for path in re.findall(r"^output/(\S+)", page, re.M):
        assert (work / "output" / path).exists(), path
    for flag in set(re.findall(r"`(--\w+)", page)) - {"--expert_kind", "--max"}:
        assert flag in command.parser().format_help(), flag
