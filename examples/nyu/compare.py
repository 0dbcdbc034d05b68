"""All architectures with equal budget over several seeds, and their table: one command.

    python compare.py                                # rooms, small, seeds 0 1 2
    python compare.py --rows STL AoE-MTL --epochs 2  # some of it
    python compare.py --out TABLE --results STL=RUN AoE-MTL=RUN  # of runs of main.py, nothing is trained

Rows as in the paper (MMoE, PLE, CGC, AoE with shared experts only, AoE-MTL) with equally many experts, and
the baselines HPS and STL (single-task). Every row has the same data, epochs and optimiser; the best epoch is
chosen on validation. On a CPU as many runs as cores go side by side, one thread each. Finished runs are taken
as they are, interrupted ones go on. Writes table.md, table.tex and table.json; the last line says whether
AoE-MTL is on a par with CGC and MMoE.

--results takes any names of rows; a row with several seeds is named once for each. Its table needs a folder
of its own, --out: the usual one has that of the runs which this command trains.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch

from data.files import only_run_in, read_json, write_bytes_atomic, write_json_atomic
from data.manners import main_command
from data.parallel import can_fork, choose_jobs, run_forked
from evaluation.dense_pictures import draw_curves
from evaluation.dense_tables import as_table, latex, markdown, summarise
from evaluation.tables import to_text
from examples.nyu.config import ROOMS, StudyConfig, absolute
from examples.nyu.study import (
    ROOT,
    load_best,
    make_accelerator,
    make_rooms,
    make_trainer,
    restore,
    test,
    train,
)
from train.mtl.optim import OptimConfig
from train.reporting import Reporting

log = logging.getLogger(__name__)

# Row -> architecture and numbers of experts; for three tasks all rows but HPS and STL come to four encoders.
ROWS: dict[str, tuple[str, tuple[int, ...]]] = {
    "STL": ("STL", (1,)),
    "HPS": ("HPS", (1,)),
    "MMoE": ("MMoE", (4,)),
    "PLE": ("PLE", (1, 1)),
    "CGC": ("CGC", (1, 1)),
    "AoE": ("AOEMTL", (4,)),
    "AoE-MTL": ("AOEMTL", (1, 1)),
}
ON_A_PAR = 1.0  # points of delta-m
USUAL_OUT = ROOT / "output" / "mtl" / "compare"
OF_A_RESULT = ("config", "test", "flops", "parameters")


def make_parser() -> argparse.ArgumentParser:
    """Flags of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, help="folder (output/mtl/compare; none with --results, name one then)"
    )
    parser.add_argument("--dataset_path", default="rooms", help="as of main.py (rooms)")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="(all)")
    parser.add_argument("--baseline", default="STL", help="row that delta-m is taken against (STL)")
    parser.add_argument(
        "--results", nargs="+", metavar="ROW=FOLDER", help="finished runs of main.py, in place of training"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(0 1 2)")
    parser.add_argument("--epochs", type=int, default=20, help="(20)")
    parser.add_argument("--img_size", type=int, nargs=3, default=[3, 48, 64], help="(3 48 64)")
    parser.add_argument("--width", type=int, default=16, help="plain encoder's first channels (16)")
    parser.add_argument("--head_width", type=int, default=48, help="channels of the heads (48)")
    parser.add_argument("--lr", type=float, default=1e-3, help="(0.001)")
    parser.add_argument(
        "--jobs", type=int, help="runs side by side on a CPU, one thread each; 0 = one after another (cores)"
    )
    parser.add_argument("--gpu_id", default="0", help="(0)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Run what is missing, or read what is named, then write the tables.

    Raises:
        ValueError: --results without --out, or as `train_rows` and `read_results`.
    """
    if arguments.out is None and arguments.results is not None:
        raise ValueError(
            f"--results without --out; name a folder for this table, since {USUAL_OUT} has that of the runs "
            "which this command trains"
        )
    arguments.out = arguments.out or USUAL_OUT
    results = train_rows(arguments) if arguments.results is None else read_results(arguments.results)
    summary = summarise(results, arguments.baseline)
    write_json_atomic(arguments.out / "table.json", summary)
    write_bytes_atomic(arguments.out / "table.md", markdown(summary).encode())
    write_bytes_atomic(arguments.out / "table.tex", latex(summary).encode())
    print(to_text(as_table(summary)))
    print(summary["formula"])
    print(verdict(summary))


def train_rows(arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Row -> results of its seeds; what is finished is read. Raises ValueError for a baseline that is none of
    ROWS.
    """
    if arguments.baseline not in ROWS:
        raise ValueError(f"--baseline {arguments.baseline!r}; expected one of {', '.join(ROWS)}")
    rows = [row for row in ROWS if row in {*arguments.rows, arguments.baseline}]
    cells = [(row, seed) for seed in arguments.seeds for row in rows]
    jobs = count_jobs(arguments.jobs)
    if jobs:
        if arguments.dataset_path == ROOMS:
            make_rooms()  # once, before the runs ask for them at the same time
        found = run_forked([partial(run, *cell, arguments) for cell in cells], jobs)
    else:
        found = [run(*cell, arguments) for cell in cells]
    results: dict[str, list[dict[str, Any]]] = {row: [] for row in rows}
    for (row, _), result in zip(cells, found, strict=True):
        results[row].append(result)
    return results


def read_results(named: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Row -> results of its runs, from ROW=FOLDER with the result.json of main.py in each folder.

    Raises:
        ValueError: no ROW=FOLDER, a file that is missing or of another kind, other data or scores than the
            first file has, or a row with two runs of one seed.
    """
    results: dict[str, list[dict[str, Any]]] = {}
    first: tuple[Path, dict[str, Any]] | None = None
    for item in named:
        row, _, folder = item.partition("=")
        if not row or not folder:
            raise ValueError(f"--results {item!r}; expected ROW=FOLDER, such as AoE-MTL=output/mtl/RUN")
        path = Path(folder) / "result.json"
        if not path.is_file():
            raise ValueError(f"{path}: no such file; expected the folder of a finished run of main.py")
        result = read_json(path)
        if not is_result(result):
            raise ValueError(
                f"{path}: no result of main.py; expected an object with {', '.join(OF_A_RESULT)}"
            )
        about = data_of(result)
        first = first or (path, about)
        for name, found in about.items():
            if found != first[1][name]:
                raise ValueError(
                    f"{path}: {name} {found}, {first[0]} has {first[1][name]}; compare runs of one dataset, "
                    "or score the checkpoint on the other one (main.py --mode test --dataset_path)"
                )
        runs, seed = results.setdefault(row, []), result["config"]["seed"]
        if seed in [run["config"]["seed"] for run in runs]:
            raise ValueError(f"{path}: a second run of {row} with seed {seed}; give one for each seed")
        runs.append(result)
    return results


def data_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """What two results of one table have in common: the test images, whose files may lie elsewhere on another
    machine, and how they are scored."""
    config = result["config"]
    return {
        "dataset": config.get("dataset"),
        "rooms": config.get("dataset_path") == ROOMS,
        "samples": result.get("samples"),
        "scores": {task: list(values) for task, values in result["test"].items()},
    }


def is_result(content: Any) -> bool:
    """Whether a JSON file's content has all that the table needs."""
    if not isinstance(content, dict) or not set(OF_A_RESULT) <= set(content):
        return False
    config, scores = content["config"], content["test"]
    numbers = [content["flops"], content["parameters"]]
    if not isinstance(config, dict) or "seed" not in config or not isinstance(scores, dict):
        return False
    for values in scores.values():
        if not isinstance(values, dict):
            return False
        numbers += [value for value in values.values() if value is not None]
    return bool(scores) and all(isinstance(number, (int, float)) for number in numbers)


def count_jobs(asked: int | None) -> int:
    """Runs side by side; by default one per core on a CPU. Raises ValueError where there cannot be any."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    possible = can_fork(device, int(os.environ.get("WORLD_SIZE", "1")))
    return choose_jobs(asked, possible, "runs go side by side in one launch on a CPU only; leave it out")


def run(row: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row and seed: what is finished is read, what is not is trained."""
    arch, experts = ROWS[row]
    config = StudyConfig(
        arch=arch,
        optim=OptimConfig(lr=arguments.lr, scheduler="cos"),
        encoder="plain",
        width=arguments.width,
        head_width=arguments.head_width,
        num_experts=experts,
        img_size=tuple(arguments.img_size),
        dataset_path=absolute(arguments.dataset_path),
        aug=True,
        recompute=False,  # images are small
        epochs=arguments.epochs,
        seed=seed,
    )
    folder = arguments.out / f"{row}_seed_{seed}"
    finished = folder / "result.json"
    if finished.is_file() and (result := json.loads(finished.read_text()))["config"] == config.as_dict():
        return result
    log.info("%s, seed %d", row, seed)
    reporting = Reporting(folder, every=10, progress=not arguments.quiet, title=f"{row} {seed}")
    trainer = make_trainer(config, make_accelerator(config, arguments.gpu_id), reporting)
    with only_run_in(folder):
        train(config, trainer)
        _, content = load_best(trainer.best_path)
        restore(trainer, content, trainer.best_path)
        draw_curves(json.loads((folder / "history.json").read_text()), folder / "curves.png")
        return test(config, trainer, content, folder)


def verdict(summary: Mapping[str, Any]) -> str:
    """Whether AoE-MTL keeps up with CGC and MMoE, by delta-m."""
    gains = {name: row["columns"]["delta-m"]["mean"] for name, row in summary["rows"].items()}
    others = [name for name in ("CGC", "MMoE") if name in gains]
    if "AoE-MTL" not in gains or not others:
        return "AoE-MTL was not compared with CGC and MMoE"
    if None in (gains["AoE-MTL"], *(gains[name] for name in others)):
        return f"delta-m is not defined: a score of {summary.get('baseline')} is 0 or missing; train longer"
    best = max(others, key=lambda name: gains[name])
    gap = gains["AoE-MTL"] - gains[best]
    word = "at least on a par" if gap >= -ON_A_PAR else "NOT on a par"
    return f"AoE-MTL is {word} with {' and '.join(others)}: delta-m {gap:+.2f} points against {best}"


if __name__ == "__main__":
    sys.exit(main_command(make_parser(), main))
