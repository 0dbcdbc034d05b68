"""Scores over a whole dataset; what no pixel counted in is None, so that result files stay JSON."""

import json
from pathlib import Path

import pytest
from accelerate import Accelerator

from data.dense.rooms import write_rooms
from evaluation.dense_pictures import draw_curves
from evaluation.dense_tables import as_table, latex, summarise
from examples.nyu.config import StudyConfig
from examples.nyu.study import make_trainer, open_part
from train.mtl.evaluate import Evaluation, finite
from train.reporting import Reporting


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Of rooms in which nothing is labelled, and no depth measured."""
    rooms = write_rooms(tmp_path_factory.mktemp("nyu") / "rooms", 2, 3, 16, 16)
    dataset_config = StudyConfig(
        arch="HPS", encoder="plain", width=2, head_width=4, img_size=(3, 16, 16), dataset_path=str(rooms)
    )
    dataset = open_part(dataset_config, "val")
    samples = [dataset[i] for i in range(3)]
    for _, targets in samples:
        targets["segmentation"].fill_(-1)
        targets["depth"].zero_()
    trainer = make_trainer(dataset_config, Accelerator(cpu=True), Reporting(rooms))
    return trainer.test(samples)  # type: ignore[arg-type]


def test_nothing_measured_is_none(evaluation: Evaluation) -> None:
    assert evaluation.samples == 3
    assert evaluation.losses["segmentation"] == evaluation.losses["depth"] == 0
    assert evaluation.scores["segmentation"] == {"mIoU": None, "pixAcc": None}
    assert evaluation.scores["depth"] == {"abs_err": None, "rel_err": None}
    assert all(value is not None for value in evaluation.scores["normal"].values())
    json.dumps(evaluation.scores, allow_nan=False)
    assert finite(float("inf")) is None and finite(0.0) == 0


def test_tables_and_curves_show_a_dash(evaluation: Evaluation, tmp_path: Path) -> None:
    run = {"config": {"seed": 0}, "test": evaluation.scores, "flops": 1e9, "parameters": 1000}
    summary = summarise({"STL": [run], "HPS": [run]}, "STL")
    json.dumps(summary, allow_nan=False)
    table = as_table(summary)
    assert table[2][1:5] == ["-"] * 4 and table[2][5] != "-" and table[2][10] == "-"
    assert " & - & - & - & - & " in latex(summary)
    entry = {"train_losses": [0.0] * 3, "val_losses": evaluation.losses, "val_scores": evaluation.scores}
    path = draw_curves([{**entry, "epoch": 1}, {**entry, "epoch": 2}], tmp_path / "curves.png")
    assert path.stat().st_size > 1000
