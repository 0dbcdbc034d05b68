"""The page about methods: its example works, and no method or flag is missing."""

import re
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

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
