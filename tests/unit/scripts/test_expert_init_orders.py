"""The table over orders of the tasks, from summaries as eval_all.py writes them."""

import json
from pathlib import Path

import pytest

from data.benchmark import read_benchmark
from scripts.expert_init_orders import (
    SEQUENTIAL,
    as_markdown,
    choose_orders,
    final,
    folder_of,
    in_order,
    summarise,
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two orders of two tasks; MA 80 and 90 for the experts, 40 and 60 in sequence."""
    for order, experts, sequence in (((0, 1), 80.0, 40.0), ((1, 0), 90.0, 60.0)):
        for init, method, value in (("scratch", "anchor_moe", experts), (SEQUENTIAL, SEQUENTIAL, sequence)):
            path = folder_of(tmp_path, order, init) / "results" / "summary.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({"methods": {method: {"MA": value, "AF": 100 - value}}}))
    return tmp_path


def test_what_the_order_does_to_ma_and_af(out: Path) -> None:
    orders = choose_orders(2, 2, 0)
    assert orders == [(0, 1), (1, 0)]
    rows = {name: final(out, orders, name) for name in ("scratch", SEQUENTIAL)}
    assert rows["scratch"]["MA"] == 85.0 and rows["scratch"]["AF_by_order"] == [20.0, 10.0]
    assert rows[SEQUENTIAL]["MA_std"] == pytest.approx(200**0.5)
    learned = dict.fromkeys(orders, [90.0, 80.0])
    table = {
        "benchmark": "B",
        "split": "val",
        "tasks": ["a", "b"],
        "orders": orders,
        "inits": {"scratch": summarise(learned, learned)},
        "final": rows,
    }
    assert "| sequential | 50.00 +- 14.14 | 50.00 +- 14.14 |" in as_markdown(table).splitlines()


def test_a_benchmark_in_another_order_keeps_its_protocol(tmp_path: Path) -> None:
    tasks = [{"name": name, "test": "test.json"} for name in ("a", "b")]
    (tmp_path / "test.json").write_text("[]")
    for stated in ({}, {"protocol": "half of val"}):
        (tmp_path / "b.json").write_text(json.dumps({"name": "B", "tasks": tasks, **stated}))
        made = in_order(read_benchmark(tmp_path / "b.json"), (1, 0))
        assert [task["name"] for task in made["tasks"]] == ["b", "a"]
        assert made.get("protocol") == stated.get("protocol")
