"""AoE-MTL and its baselines, recorded: every file and tensor of `aoe_mtl/`, from this one file of tests.

    PARITY_ROOT=DIR pytest tests/parity/test_aoe_mtl.py

Tolerances are those of the recorded set's README; a run of all of this fails if something that is recorded
was not read (completeness.py).
"""

from tests.parity.aoe_architectures import (
    test_index_and_files_name_the_same_cases,
    test_losses_in_float64,
    test_sizes,
    test_task_by_task,
    test_training_step,
)
from tests.parity.aoe_fusion import test_fusion_as_recorded
from tests.parity.aoe_metrics import test_a_class_that_never_occurs, test_scores_over_all_batches
from tests.parity.aoe_training import test_optimiser_steps
from tests.parity.aoe_weightings import test_combined_gradients

__all__ = [
    "test_a_class_that_never_occurs",
    "test_combined_gradients",
    "test_fusion_as_recorded",
    "test_index_and_files_name_the_same_cases",
    "test_losses_in_float64",
    "test_optimiser_steps",
    "test_scores_over_all_batches",
    "test_sizes",
    "test_task_by_task",
    "test_training_step",
]
