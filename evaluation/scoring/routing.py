"""How well samples were sent to their own task's expert.

Letters: N samples, T tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NO_EXPERT = -1  # the router abstained: the bare backbone answered

FORMULAS: dict[str, str] = {
    "routing_accuracy": "samples sent to their own task's expert / all samples",
    "routing_accuracy_macro": "mean over tasks of the routing accuracy on the task's samples",
    "oracle_gap": "MA(oracle) - MA(anchor_moe)",
}


@dataclass(frozen=True)
class RoutingRecord:
    """What the router chose for N samples at one stage."""

    true: Sequence[int]  # (N,) the sample's own task
    chosen: Sequence[int]  # (N,) the task whose expert answered, NO_EXPERT where the router abstained
    by_modality: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    # modality -> (N,) the task that this modality alone would choose, None where the sample lacks it

    def __post_init__(self) -> None:
        for name, values in {"chosen": self.chosen, **self.by_modality}.items():
            if len(values) != len(self.true):
                raise ValueError(
                    f"routing record: {len(values)} entries of {name}, expected {len(self.true)}"
                )


@dataclass(frozen=True)
class ModalityScore:
    """How well one modality alone would have routed."""

    accuracy: float  # percent of the samples that have the modality
    n: int  # samples that have it


@dataclass(frozen=True)
class RoutingScores:
    """Scores of one record; percentages."""

    micro: float  # share of all samples sent to their own task
    macro: float  # mean over the tasks that have samples
    confusion: NDArray[np.int64]  # (T, T) samples of task [row] sent to task [column]
    abstained: NDArray[np.int64]  # (T,) samples of the task answered by the bare backbone
    modalities: dict[str, ModalityScore]  # in the record's order; one that no sample has is left out


def _positions(ids: Sequence[int], task_ids: Sequence[int], name: str) -> NDArray[np.int64]:
    """Map task ids to positions in task_ids, NO_EXPERT to T. Raises ValueError for an id that is neither."""
    position = {task_id: index for index, task_id in enumerate(task_ids)} | {NO_EXPERT: len(task_ids)}
    unknown = sorted(set(ids) - set(position))
    if unknown:
        raise ValueError(
            f"routing record: {name} has the task ids {unknown}, expected some of {list(task_ids)}"
        )
    return np.array([position[task_id] for task_id in ids], dtype=np.int64)


def score_routing(record: RoutingRecord, task_ids: Sequence[int]) -> RoutingScores:
    """Score a record; task_ids names rows and columns of the confusion matrix.

    micro = 100 / N sum_n [chosen_n = true_n];  macro = mean over tasks t of the same among samples of t.
    An abstention counts as wrong. Raises ValueError for an empty record or a task id that is not in task_ids.
    """
    if not len(record.true):
        raise ValueError("routing record without samples; nothing to score")
    T = len(task_ids)
    true_N = _positions(record.true, task_ids, "true")
    if (true_N == T).any():
        raise ValueError(f"routing record: true has {NO_EXPERT}; every sample belongs to a task")
    counts = np.zeros((T, T + 1), dtype=np.int64)
    np.add.at(counts, (true_N, _positions(record.chosen, task_ids, "chosen")), 1)
    confusion, abstained, sizes = counts[:, :T], counts[:, T], counts.sum(axis=1)
    filled = sizes > 0
    modalities = {}
    for name, choices in record.by_modality.items():
        votes = [
            (own, choice) for own, choice in zip(record.true, choices, strict=True) if choice is not None
        ]
        if votes:
            share = 100.0 * float(np.mean([own == choice for own, choice in votes]))
            modalities[name] = ModalityScore(accuracy=share, n=len(votes))
    return RoutingScores(
        micro=100.0 * float(confusion.trace() / len(true_N)),
        macro=100.0 * float((confusion.diagonal()[filled] / sizes[filled]).mean()),
        confusion=confusion,
        abstained=abstained,
        modalities=modalities,
    )


def oracle_gap(oracle_MA: float | None, routed_MA: float | None) -> float | None:
    """MA(oracle) - MA(routed) in percent points: what wrong routing costs. None if either is unknown."""
    return None if oracle_MA is None or routed_MA is None else oracle_MA - routed_MA
