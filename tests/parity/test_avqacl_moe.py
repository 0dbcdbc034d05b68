"""The published system, recorded: every file and tensor of `avqacl_moe/`, from this one file of tests.

    PARITY_ROOT=DIR pytest tests/parity/test_avqacl_moe.py

Tolerances are those of the recorded set's README (recorded.py); a run of all of this fails if something that
is recorded was not read (completeness.py).
"""

from tests.parity.avqacl_language import (
    test_gaps_of_greedy_answers,
    test_greedy_answers,
    test_logits,
    test_mixed_experts_in_one_batch,
    test_prompt_ids,
    test_spliced_embeddings,
)
from tests.parity.avqacl_media import test_audio, test_frames, test_routing_features
from tests.parity.avqacl_prompts import (
    test_answered_prompts,
    test_legacy_flag,
    test_open_prompts,
    test_prompts_are_recorded_for_every_sample,
)
from tests.parity.avqacl_routing import (
    test_all_samples_in_one_batch_select_the_same,
    test_published_anchors_fall_back_to_the_raw_metric,
    test_published_experts_are_recognised,
    test_selection_as_recorded,
    test_whole_evaluation,
)
from tests.parity.avqacl_training import (
    test_edge_batches,
    test_half_precision_features,
    test_published_anchors_after_all_batches,
    test_training_batches,
    test_training_steps,
)

__all__ = [
    "test_all_samples_in_one_batch_select_the_same",
    "test_answered_prompts",
    "test_audio",
    "test_edge_batches",
    "test_frames",
    "test_gaps_of_greedy_answers",
    "test_greedy_answers",
    "test_half_precision_features",
    "test_legacy_flag",
    "test_logits",
    "test_mixed_experts_in_one_batch",
    "test_open_prompts",
    "test_prompt_ids",
    "test_prompts_are_recorded_for_every_sample",
    "test_published_anchors_after_all_batches",
    "test_published_anchors_fall_back_to_the_raw_metric",
    "test_published_experts_are_recognised",
    "test_routing_features",
    "test_selection_as_recorded",
    "test_spliced_embeddings",
    "test_training_batches",
    "test_training_steps",
    "test_whole_evaluation",
]
