"""The page about methods: its example works, and no method or flag is missing."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data.benchmark import read_benchmark
from methods.table import METHODS, trained
from tests.unit.train.small_training import small_model


@pytest.fixture
def page(repo_root: Path) -> str:
    return (repo_root / "docs" / "methods.md").read_text()


def test_every_method_and_setting_is_described(page: str) -> None:
    for method in METHODS:
        assert f"| `{method.name}` |" in page
        for setting in fields(method):
            assert f"`--{setting.name}`" in page
            shown = setting.default if isinstance(setting.default, str) else f"{setting.default:g}"
            assert f"({shown})" in setting.metadata["help"]


def test_the_drivers_name_every_method(repo_root: Path) -> None:
    for script, methods in (("eval_all_tasks.sh", METHODS), ("train_all_tasks.sh", trained(METHODS))):
        help_text = (repo_root / script).read_text().split('METHODS="..."', 1)[1].split("SEEDS=", 1)[0]
        named = set(re.findall(r"\w+", help_text))
        assert {method.name for method in methods} <= named, script


def test_the_exceptions_to_the_budget_stand_at_the_top(page: str) -> None:
    top = page.split("```")[0]
    assert all(f"`{name}`" in top for name in ("moe_lora", "l2p"))


def test_the_command_lines_of_the_stamps_table_make_its_benchmark(page: str, tmp_path: Path) -> None:
    *lines, last = page.split("<!-- stamps -->\n```bash\n")[1].split("\n```")[0].splitlines()
    assert last == 'bash scripts/reproduce_table.sh stamps.json all "0 1"'
    for task in ("Come", "Happening", "Where", "Which"):
        for split in ("train", "val", "test"):
            (tmp_path / f"{split}_{task}.json").write_text("[]")
    script = "\n".join(lines).replace("python", shlex.quote(sys.executable))
    subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env={**os.environ, "STAMPS": str(tmp_path)}, check=True
    )
    benchmark = read_benchmark(tmp_path / "stamps.json")
    summary = json.loads((Path(__file__).parents[3] / "docs/results/methods_stamps.json").read_text())
    assert benchmark.name == summary["benchmark"]
    assert [task.name for task in benchmark.tasks] == summary["tasks"]
    assert {path.name for path in benchmark.files("test")} == summary["provenance"]["data"].keys()


def test_the_example_is_a_method(page: str) -> None:
    made: dict[str, Any] = {"__name__": "tether"}
    exec(page.split("```python\n")[1].split("```")[0], made)
    model = small_model()
    assert model.bank is not None
    model.bank.add(1, generator=torch.Generator().manual_seed(1))
    method = made["Tether"](tether_lambda=4.0)
    cell = SimpleNamespace(task_id=1, start_from=Path("expert_task_0.pt"))
    with method.extra(cell, SimpleNamespace(bank=model.bank)) as extra:
        [*_, last] = model.bank.train_only(1)
        assert extra.penalty().item() == 0.0
        with torch.no_grad():
            last.view(-1)[0] += 3.0
        assert extra.penalty().item() == pytest.approx(18.0)
