"""Multi-task learning on NYUv2: segmentation, depth and surface normals; train, then test.

    python main.py --weighting EW --arch AOEMTL --img_size 3 288 384 --num_experts 2 2 \\
        --dataset_path /path/to/nyuv2 --gpu_id 0 --scheduler step
    python main.py --mode test --load_path /path/to/best.pt
    python main.py --arch AOEMTL --dataset_path rooms --encoder plain --img_size 3 72 96 --epochs 20 --lr 1e-3

The best epoch is chosen on a seeded tenth of train/; val/ is the test set and is scored once, with that
epoch. A test takes its whole configuration from the checkpoint. docs/mtl.md has the rest.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from data.files import only_run_in, sha256_text
from data.manners import main_command
from data.run_record import differing_keys, read_identity
from evaluation.dense_pictures import draw_curves, draw_panel
from evaluation.tables import MISSING
from examples.nyu.arguments import check_against, given, make_config, make_parser
from examples.nyu.config import StudyConfig
from examples.nyu.study import (
    ROOT,
    load_best,
    make_accelerator,
    make_trainer,
    open_part,
    restore,
    sample_predictions,
    test,
    train,
)
from train.mtl.trainer import Trainer
from train.reporting import Reporting

FREE = ("test_bs", "precision")  # what a test in the folder of its training may change
MAY_DIFFER = ("dataset_path", *FREE)  # of a test and its training
SHOWN = 4  # samples in the panel


def main(arguments: argparse.Namespace) -> None:
    """Train and test, or test alone."""
    if arguments.mode == "test":
        run_test(arguments)
    else:
        run_training(arguments)


def run_training(arguments: argparse.Namespace) -> None:
    """Train, or go on from where an earlier try stopped; then score the best epoch."""
    config = make_config(arguments)
    accelerator = make_accelerator(config, arguments.gpu_id)
    folder = arguments.save_path or default_folder(config)
    reporting = Reporting(
        folder,
        save_every=arguments.save_every,
        tensorboard=arguments.tensorboard,
        progress=not arguments.quiet,
        title=config.arch,
    )
    started = (folder / "state.pt").is_file()  # its weights are all there: what they began with may be gone
    trainer = make_trainer(config, accelerator, reporting, arguments.workers, load=started)
    with only_run_in(folder):
        train(config, trainer, arguments.ignore_memory)
        _, content = load_best(trainer.best_path)
        restore(trainer, content, trainer.best_path)
        result = test(config, trainer, content, folder)
        if accelerator.is_main_process:
            draw_curves(json.loads((folder / "history.json").read_text()), folder / "curves.png")
            finish(config, trainer, result, folder)


def run_test(arguments: argparse.Namespace) -> None:
    """Score a checkpoint; its configuration is its own."""
    if arguments.load_path is None:
        raise ValueError("--mode test needs --load_path: a best.pt, or the folder that holds it")
    config, content = load_best(arguments.load_path)
    check_against(config, arguments, MAY_DIFFER)
    config = replace(config, **{n: value for n, value in given(arguments).items() if n in MAY_DIFFER})
    folder = arguments.save_path or default_folder(config).with_name(f"{default_folder(config).name}_test")
    check_folder(config, folder)
    accelerator = make_accelerator(config, arguments.gpu_id)
    trainer = make_trainer(config, accelerator, Reporting(folder), arguments.workers, load=True)
    restore(trainer, content, arguments.load_path)
    result = test(config, trainer, content, folder)
    if accelerator.is_main_process:
        finish(config, trainer, result, folder)


def check_folder(config: StudyConfig, folder: Path) -> None:
    """Raise ValueError if a test would replace the result of a run of other settings or on other data."""
    run = read_identity(folder / "identity.json")
    compared = {name: value for name, value in config.as_dict().items() if name not in FREE}
    if run is not None and (lines := differing_keys({name: run.get(name) for name in compared}, compared)):
        raise ValueError(
            "\n  ".join([f"--save_path {folder} holds a run of its own; choose another:", *lines])
        )


def finish(config: StudyConfig, trainer: Trainer, result: dict, folder: Path) -> None:
    """Panel of predictions, and every metric by name."""
    dataset = open_part(config, "val")
    shown = list(range(min(SHOWN, len(dataset))))
    draw_panel(sample_predictions(trainer, dataset, shown), folder / "predictions.png")
    print(
        f"{config.arch}, {config.weighting.name}, best epoch {result['best_epoch']} of {config.epochs}: "
        f"{result['samples']} test images, {result['parameters'] / 1e6:.2f} M parameters, "
        f"{result['flops'] / 1e9:.2f} GFLOPs an image"
    )
    for task, scores in result["test"].items():
        for name, value in scores.items():
            print(f"{task:<14}{name:<10}{MISSING if value is None else format(value, '.4f'):>10}")
    print(f"results, curves and predictions: {folder}")


def default_folder(config: StudyConfig) -> Path:
    """A folder of its own for every configuration, so that the same command goes on with its own run."""
    digest = sha256_text(json.dumps(config.as_dict(), sort_keys=True))[:8]
    return ROOT / "output" / "mtl" / f"{config.arch}_{config.weighting.name}_{digest}"


if __name__ == "__main__":
    sys.exit(main_command(make_parser(__doc__), main))
