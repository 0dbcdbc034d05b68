"""What an expert's starting point is worth, over several orders of the tasks: forward transfer on validation.

    python scripts/expert_init_orders.py --orders 6 --out output/expert_init

For every order and every `--expert_init` the tasks are learned one after another and answered by the experts
that routing picks. Forward transfer of a starting point is the accuracy of an expert minus that of the expert
which learned the same task, in the same order, from scratch; the first task of an order has no earlier expert
and is left out. With `--sequential` one LoRA is fine-tuned through every order too, and MA and AF of all rows
tell what the order of the tasks does to them. Finished runs are taken as they are. Writes table.json and
table.md.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations, product
from math import factorial
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.benchmark import SPLITS, Benchmark, read_benchmark
from data.command_line import main_command
from data.files import read_json, write_bytes_atomic, write_json_atomic

ROOT = Path(__file__).resolve().parents[1]
INITS = ("scratch", "previous", "nearest", "mean")
SEQUENTIAL = "sequential"  # stands where a starting point does: one expert, each task starts from the last
Order = tuple[int, ...]  # task ids of the benchmark file, in the order of learning


def make_parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--benchmark", type=Path, default=ROOT / "data_sample" / "avqa.json", help="(sample)")
    made.add_argument("--checkpoints", type=Path, default=ROOT / "checkpoints", help="(checkpoints)")
    made.add_argument("--out", type=Path, default=ROOT / "output" / "expert_init", help="folder")
    made.add_argument("--inits", nargs="+", choices=INITS, default=INITS, help="(all)")
    made.add_argument("--orders", type=int, default=6, help="how many, the file's own among them (6)")
    made.add_argument("--sequential", action="store_true", help="fine-tune one LoRA in every order too")
    made.add_argument("--split", choices=("val", "test"), default="val", help="what is answered (val)")
    made.add_argument("--seed", type=int, default=0, help="of training and of the choice of orders (0)")
    made.add_argument(
        "--parallel", type=int, default=os.cpu_count() or 1, help="runs at a time, of one thread each (cores)"
    )
    made.add_argument("--feature_store", type=Path, help="shared by all runs (OUT/features)")
    return made


def main(arguments: argparse.Namespace) -> None:
    """Run what is missing, then write the table."""
    benchmark = read_benchmark(arguments.benchmark)
    inits = ["scratch", *(init for init in arguments.inits if init != "scratch")]
    orders = choose_orders(len(benchmark.tasks), arguments.orders, arguments.seed)
    arguments.feature_store = arguments.feature_store or arguments.out / "features"
    rows = [*inits, SEQUENTIAL] if arguments.sequential else inits
    cells = list(product(orders, rows))
    run(benchmark, *cells[0], arguments)  # encodes all clips, once
    with ThreadPoolExecutor(arguments.parallel) as pool:
        list(pool.map(lambda cell: run(benchmark, *cell, arguments), cells))
    found = {init: {order: learned(arguments.out, order, init) for order in orders} for init in inits}
    table = {
        "benchmark": benchmark.name,
        "tasks": [task.name for task in benchmark.tasks],
        "split": arguments.split,
        "orders": [list(order) for order in orders],
        "inits": {init: summarise(found[init], found["scratch"]) for init in inits},
        "final": {row: final(arguments.out, orders, row) for row in rows},
    }
    write_json_atomic(arguments.out / "table.json", table)
    text = as_markdown(table)
    write_bytes_atomic(arguments.out / "table.md", text.encode())
    print(text)


def choose_orders(tasks: int, count: int, seed: int) -> list[Order]:
    """The file's own order and others drawn without repetition. Raises ValueError for less than one."""
    if count < 1:
        raise ValueError(f"--orders: got {count}, expected at least 1")
    own: Order = tuple(range(tasks))
    if count >= factorial(tasks):
        return list(permutations(own))
    rng, found = random.Random(seed), {own: None}
    while len(found) < count:
        found[tuple(rng.sample(own, tasks))] = None
    return list(found)


def folder_of(out: Path, order: Order, init: str) -> Path:
    """OUT/0132/nearest."""
    return out / "-".join(map(str, order)) / init


def run(benchmark: Benchmark, order: Order, init: str, arguments: argparse.Namespace) -> None:
    """Train and evaluate one order from one kind of starting point, or SEQUENTIAL, unless that is done.

    Raises ValueError with the end of the log if a command fails.
    """
    folder = folder_of(arguments.out, order, init)
    if (folder / "results" / "summary.json").is_file():
        return
    start = "scratch" if init == SEQUENTIAL else init
    file = folder / "benchmark.json"
    write_json_atomic(file, in_order(benchmark, order))
    common = [
        "--checkpoints", arguments.checkpoints, "--benchmark", file, "--output", folder / "output",
        "--methods", method_of(init), "--seeds", arguments.seed, "--feature_store", arguments.feature_store,
        "--quiet",
    ]  # fmt: skip
    commands = (
        ["train/train_all.py", *common, "--expert_init", start, "--overwrite"],
        ["evaluation/eval_all.py", *common, "--results", folder / "results", "--split", arguments.split],
    )
    for command in commands:
        jobs = ["--jobs", "1"] if arguments.parallel > 1 and not has_gpu() else []
        done = subprocess.run(
            [sys.executable, *map(str, command), *jobs], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ValueError(f"{folder}: {command[0]} failed: {(done.stderr or done.stdout).strip()[-800:]}")
    print(f"{folder}: done", file=sys.stderr, flush=True)


def method_of(init: str) -> str:
    """The method that a row of the table is trained and evaluated as."""
    return SEQUENTIAL if init == SEQUENTIAL else "anchor_moe"


def has_gpu() -> bool:
    """Whether runs go to a GPU, where the flag --jobs is refused."""
    import torch

    return torch.cuda.is_available()


def in_order(benchmark: Benchmark, order: Order) -> dict[str, Any]:
    """The benchmark file with its tasks in another order, paths absolute."""
    tasks = []
    for position, number in enumerate(order):
        task = benchmark.tasks[number]
        files = {split: str(path.resolve()) for split in SPLITS if (path := getattr(task, split))}
        tasks.append({"name": task.name, "results": f"task{position}_{task.name.lower()}", **files})
    content: dict[str, Any] = {"name": benchmark.name, "tasks": tasks}
    if benchmark.media_root:
        content["media_root"] = str(benchmark.media_root.resolve())
    if benchmark.media_prefix:
        content["media_prefix"] = benchmark.media_prefix
    if benchmark.protocol:
        content["protocol"] = benchmark.protocol
    return content


def learned(out: Path, order: Order, init: str) -> list[float]:
    """Accuracy of every task, by position, right after it was learned, in percent."""
    matrix = read_json(folder_of(out, order, init) / "results" / "summary.json")["methods"]["anchor_moe"][
        "matrix"
    ]
    return [float(matrix[position][position]) for position in range(len(order))]


def final(out: Path, orders: Sequence[Order], init: str) -> dict[str, Any]:
    """MA and AF after the last task in every order, with mean and spread over orders, in percent."""
    made: dict[str, Any] = {}
    for name in ("MA", "AF"):
        values = []
        for order in orders:
            summary = read_json(folder_of(out, order, init) / "results" / "summary.json")
            values.append(float(summary["methods"][method_of(init)][name]))
        made[name] = statistics.mean(values)
        made[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
        made[f"{name}_by_order"] = values
    return made


def summarise(
    found: Mapping[Order, Sequence[float]], scratch: Mapping[Order, Sequence[float]]
) -> dict[str, Any]:
    """Mean accuracy and forward transfer with their spread over orders, and transfer by position."""
    means = [statistics.mean(values) for values in found.values()]
    gains = {
        order: [a - b for a, b in zip(values, scratch[order], strict=True)][1:]
        for order, values in found.items()
    }
    transfer = [statistics.mean(values) for values in gains.values()]
    return {
        "learned": statistics.mean(means),
        "learned_std": statistics.stdev(means) if len(means) > 1 else None,
        "forward_transfer": statistics.mean(transfer),
        "forward_transfer_std": statistics.stdev(transfer) if len(transfer) > 1 else None,
        "by_position": [statistics.mean(values) for values in zip(*gains.values(), strict=True)],
        "runs": {"-".join(map(str, order)): list(values) for order, values in found.items()},
    }


def as_markdown(table: Mapping[str, Any]) -> str:
    """The table of table.md."""
    orders = len(table["orders"])
    positions = range(2, len(table["tasks"]) + 1)
    lines = [
        f"{table['benchmark']}, {table['split']}, {orders} orders of {', '.join(table['tasks'])}; percent",
        "",
        "| starting point | learned | forward transfer | "
        + " | ".join(f"at place {p}" for p in positions)
        + " |",
        "| --- |" + " ---: |" * (2 + len(positions)),
    ]
    for init, row in table["inits"].items():
        cells = [spread(row, "learned"), "0" if init == "scratch" else spread(row, "forward_transfer")]
        cells += (
            [f"{value:+.2f}" for value in row["by_position"]] if init != "scratch" else ["0"] * len(positions)
        )
        lines.append(f"| {init} | " + " | ".join(cells) + " |")
    lines += ["", "| learned in every order | MA | AF |", "| --- | ---: | ---: |"]
    for name, row in table["final"].items():
        lines.append(f"| {name} | {spread(row, 'MA')} | {spread(row, 'AF')} |")
    return "\n".join(lines) + "\n"


def spread(row: Mapping[str, Any], name: str) -> str:
    """`91.25 +- 0.80`."""
    deviation = row[f"{name}_std"]
    sign = "+" if name == "forward_transfer" else ""
    return f"{row[name]:{sign}.2f}" + ("" if deviation is None else f" +- {deviation:.2f}")


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
