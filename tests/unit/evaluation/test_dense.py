"""Scores of dense tasks: cases that can be counted by hand, and delta-m of the paper's table."""

import math

import numpy as np
import pytest

from evaluation.scoring.dense import (
    HIGHER_IS_BETTER,
    DepthScores,
    MeanLoss,
    NormalScores,
    SegmentationScores,
    delta_m,
)

NAMES = [(task, name) for task, names in HIGHER_IS_BETTER.items() for name in names]
# mIoU, pixel accuracy, absolute and relative depth error, normals: printed in the paper
MMOE = (28.58, 53.87, 0.68, 0.27, 29.89, 23.92, 24.11, 47.58, 59.50)
AOE_MTL = (30.06, 56.40, 0.61, 0.25, 29.26, 22.89, 25.03, 49.29, 61.19)


def rows(values: tuple[float, ...]) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {task: {} for task in HIGHER_IS_BETTER}
    for (task, name), value in zip(NAMES, values, strict=True):
        table[task][name] = value
    return table


def test_delta_m_of_the_papers_columns() -> None:
    assert delta_m(rows(AOE_MTL), rows(MMOE)) == pytest.approx(5.71, abs=0.005)  # printed: 9.31
    assert delta_m(rows(MMOE), rows(MMOE)) == 0


def test_delta_m_signs_and_faults() -> None:
    one = {"a": {"up": 2.0, "down": 1.0}}
    directions = {"a": {"up": True, "down": False}}
    assert delta_m({"a": {"up": 3.0, "down": 0.5}}, one, directions) == 50
    with pytest.raises(ValueError, match="other tasks or metrics"):
        delta_m({"a": {"up": 1.0}}, one, directions)
    with pytest.raises(ValueError, match="is 0"):
        delta_m(one, {"a": {"up": 0.0, "down": 1.0}}, directions)


def test_segmentation() -> None:
    score = SegmentationScores(3)
    truth = np.array([[[0, 0, 1, -1]]])
    score.update(np.array([[[0, 1, 1, 2]]]), truth)
    assert score.result() == {"mIoU": 0.5, "pixAcc": pytest.approx(2 / 3)}  # class 2 never occurs
    with pytest.raises(ValueError, match="label 3, but there are 3 classes"):
        score.update(truth, np.array([[[0, 0, 1, 3]]]))


def test_depth_and_normals() -> None:
    depth, normals = DepthScores(), NormalScores()
    depth.update(np.array([[[[1.0, 3.0, 9.0]]]]), np.array([[[[2.0, 2.0, 0.0]]]]))
    assert depth.result() == {"abs_err": 1.0, "rel_err": 0.5}
    truth = np.zeros((1, 3, 1, 3))
    truth[0, 2, 0, :2] = 1
    predicted = np.zeros((1, 3, 1, 3))
    predicted[0, :, 0, 0], predicted[0, :, 0, 1] = (0, 0, 5), (1, 0, 1)
    normals.update(predicted, truth)
    result = normals.result()
    assert result["mean"] == result["median"] == pytest.approx(22.5)
    assert [result[name] for name in ("<11.25", "<22.5", "<30")] == [0.5, 0.5, 0.5]


def test_normals_of_several_batches_are_pooled() -> None:
    normals = NormalScores()
    for angles in ([0.0, 10.0, 20.0], [25.0, 95.0]):
        radians = np.radians(angles)
        predicted = np.stack([np.sin(radians), 0 * radians, np.cos(radians)])[None, :, None]
        truth = np.zeros_like(predicted)
        truth[:, 2] = 1
        normals.update(predicted, truth)
    expected = {"mean": 30.0, "median": 20.0, "<11.25": 0.4, "<22.5": 0.6, "<30": 0.8}
    assert normals.result() == pytest.approx(expected)


def test_loss_weighs_batches_by_their_images() -> None:
    loss = MeanLoss()
    loss.update(1.0, 3)
    loss.update(5.0, 1)
    assert loss.result() == (1 * 3 + 5 * 1) / 4


def test_nothing_measured_is_no_score() -> None:
    assert math.isnan(MeanLoss().result())
    for score in (SegmentationScores(3), DepthScores(), NormalScores()):
        assert all(math.isnan(value) for value in score.result().values())
