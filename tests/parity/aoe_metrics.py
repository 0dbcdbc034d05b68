"""Scores and losses over three batches, and the class that never occurs."""

import numpy as np
import pytest
import torch

from evaluation.scoring.dense import DepthScores, MeanLoss, NormalScores, SegmentationScores
from tests.parity.aoe_sets import LOSS, LOSSES
from tests.parity.recorded import RecordedSet, Tolerance

SCORE = Tolerance("dense scores", 1e-5)


def test_scores_over_all_batches(aoe: RecordedSet) -> None:
    expected, tensors = aoe.file("metrics.json"), aoe.file("metrics.safetensors")
    confusion = np.array(expected["confusion"])
    scores = {
        "segmentation": SegmentationScores(len(confusion)),
        "depth": DepthScores(),
        "normal": NormalScores(),
    }
    assert set(expected["names"]) == set(scores)
    means = {task: MeanLoss() for task in scores}
    for batch, size in enumerate(expected["batch_sizes"]):
        losses = expected["loss_per_batch"][batch]
        for task, score in scores.items():
            predicted, truth = tensors[f"pred{batch}.{task}"], tensors[f"gt{batch}.{task}"]
            assert len(predicted) == size
            score.update(predicted.numpy(), truth.numpy())
            loss = LOSSES[task](predicted, truth)
            aoe.notes.close(loss, torch.tensor(losses[task]), LOSS, f"batch {batch} {task}")
            means[task].update(loss.item(), size)
    assert np.array_equal(scores["segmentation"].confusion, confusion)
    for task, score in scores.items():
        result = score.result()
        assert list(result) == expected["names"][task]
        for name, value in result.items():
            recorded = torch.tensor(expected["scores"][task][name], dtype=torch.float64)
            aoe.notes.close(torch.tensor(value).double(), recorded, SCORE, f"{task} {name}")
        assert means[task].result() == pytest.approx(expected["epoch_loss"][task], rel=1e-6)


def test_a_class_that_never_occurs(aoe: RecordedSet) -> None:
    expected = aoe.file("metrics.json")["absent_class"]
    tensors = aoe.file("metrics_absent_class.safetensors")
    score = SegmentationScores(len(tensors["confusion"]))
    score.update(tensors["pred"].numpy(), tensors["gt"].numpy())
    assert np.array_equal(score.confusion, tensors["confusion"].numpy())
    result = score.result()
    assert result["pixAcc"] == pytest.approx(expected["pixAcc"], rel=1e-6)
    assert result["mIoU"] == pytest.approx(expected["mIoU_over_present_classes"], rel=1e-6)
    union = score.confusion.sum(0) + score.confusion.sum(1) - np.diag(score.confusion)
    assert expected["mIoU_is_nan"] == bool((union == 0).any())  # 0 / 0 in the published mean
