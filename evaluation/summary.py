"""summary.json: what every method of an evaluation achieved, means over seeds with deviations beside them.

Letters: T tasks, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.scoring import continual, routing, statistics
from evaluation.scoring.continual import Cell, Matrix
from evaluation.scoring.routing import RoutingRecord, RoutingScores
from evaluation.scoring.statistics import SampleScores

# In the order of the table: the method, what it could reach at most, what it is compared with.
METHOD_TITLES: dict[str, str] = {
    "anchor_moe": "anchor MoE",
    "anchor_moe_published": "anchor MoE by the published rule (raw cosine)",
    "anchor_moe_lda": "anchor MoE by LDA (Gaussian log ratio)",
    "anchor_moe_autonomy": "anchor MoE by autonomy (largest activation)",
    "oracle": "oracle routing (task given)",
    "joint": "joint training (upper bound)",
    "sequential": "sequential fine-tuning of one LoRA",
    "blind": "blind (no video, no audio)",
    "zero_shot": "bare backbone (zero-shot)",
    "replay": "experience replay",
    "ewc": "elastic weight consolidation (EWC)",
    "lwf": "distillation (LwF)",
    "olora": "orthogonal subspaces (O-LoRA)",
    "moe_lora": "mixture of LoRA under a learned gate",
    "l2p": "prompt pool (L2P)",
}
USUAL = ("anchor_moe", "oracle", "joint", "sequential", "blind", "zero_shot")  # named if not run
TESTED = "anchor_moe"  # what every other method is tested against
DECIMALS = 4  # of the percentages in summary.json
NOTES = {
    "MA_normalised": "MA where punctuation, number words and the benchmark's aliases are forgiven too",
    "std": "NAME_std, +-: sample standard deviation over the seeds (n - 1); null for a single seed",
}


@dataclass(frozen=True)
class MethodResult:
    """What one method achieved. Without matrices it was not run, and the report says so."""

    name: str  # a key of METHOD_TITLES
    matrices: tuple[Matrix, ...] = ()  # one for each seed: T x T percentages (or 1 x T), None: not reached
    n: int = 0  # test questions of one seed at the last stage
    n_failed: tuple[int, ...] = ()  # one for each seed: questions at the last stage without an answer
    routing: tuple[RoutingRecord, ...] = ()  # one for each seed, last stage; empty: it does not route
    note: str = ""  # why it was not run, or what a reader should know
    samples: tuple[SampleScores, ...] = ()  # one for each seed: the matrices sample by sample, for intervals
    normalised: tuple[Sequence[Cell], ...] = ()  # one for each seed: T final accuracies by normalised match

    def __post_init__(self) -> None:
        if self.name not in METHOD_TITLES:
            raise ValueError(f"method {self.name!r}; expected one of {', '.join(METHOD_TITLES)}")
        seeds = len(self.matrices)
        if len(self.n_failed) != seeds or len(self.routing) not in (0, seeds):
            raise ValueError(
                f"method {self.name}: {seeds} matrices, {len(self.n_failed)} counts of failed answers, "
                f"{len(self.routing)} routing records; expected one of each for every seed"
            )
        for what, found in (("samples", self.samples), ("normalised match", self.normalised)):
            if len(found) not in (0, seeds):
                raise ValueError(
                    f"method {self.name}: {what} of {len(found)} seeds, expected {seeds} or none"
                )
        if any(not 0 <= failed <= self.n for failed in self.n_failed):
            raise ValueError(f"method {self.name}: n_failed is {self.n_failed}, expected 0 to n = {self.n}")


def _rounded(value: Any) -> Any:
    """Round every float in nested lists and dicts; whole counts stay whole, no negative zero."""
    if isinstance(value, float):
        return round(value, DECIMALS) + 0.0
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _with_std(name: str, values: Sequence[Cell]) -> dict[str, Cell]:
    """{name: mean over seeds, name_std: deviation}."""
    mean, std = continual.mean_and_std(values)
    return {name: mean, f"{name}_std": std}


def _zero_shot_rows(methods: Mapping[str, MethodResult], seeds: int) -> list[Sequence[Cell] | None]:
    """The bare backbone's accuracies for each of S seeds; it knows no seed, so a single row serves all."""
    matrices = methods["zero_shot"].matrices if "zero_shot" in methods else ()
    rows = [matrix[-1] for matrix in matrices]
    if len(rows) == 1:
        return [rows[0]] * seeds
    return list(rows) if len(rows) == seeds else [None] * seeds


def _summarise_modality(name: str, scores: Sequence[RoutingScores]) -> dict[str, Any]:
    """Routing accuracy of one modality alone, and the samples of one seed that have it."""
    found = [score.modalities[name] for score in scores if name in score.modalities]
    return {
        **_with_std("accuracy", [score.accuracy for score in found]),
        "n": max(score.n for score in found),
    }


def _summarise_routing(records: Sequence[RoutingRecord], task_ids: Sequence[int]) -> dict[str, Any]:
    """Routing entries of a method: means over seeds, the confusion matrix summed over seeds."""
    if not records:
        return {"routing_accuracy": None, "routing_accuracy_std": None}
    scores = [routing.score_routing(record, task_ids) for record in records]
    modalities = dict.fromkeys(name for score in scores for name in score.modalities)
    return {
        **_with_std("routing_accuracy", [score.micro for score in scores]),
        **_with_std("routing_accuracy_macro", [score.macro for score in scores]),
        "routing_confusion": np.sum([score.confusion for score in scores], axis=0).tolist(),
        "routing_abstained": np.sum([score.abstained for score in scores], axis=0).tolist(),
        "routing_by_modality": {name: _summarise_modality(name, scores) for name in modalities},
    }


def _summarise_method(
    method: MethodResult, zero_shot: Sequence[Sequence[Cell] | None], task_ids: Sequence[int]
) -> dict[str, Any]:
    """One entry of "methods": means over the seeds with deviations beside them, then each seed."""
    measured = [
        continual.measure(matrix, baseline).as_dict()
        for matrix, baseline in zip(method.matrices, zero_shot, strict=True)
    ]
    matrix, matrix_std = continual.mean_matrix(method.matrices)
    entry: dict[str, Any] = {"matrix": matrix, "matrix_std": matrix_std}
    for name in measured[0]:
        entry |= _with_std(name, [metrics[name] for metrics in measured])
    found = statistics.intervals(method.samples, len(matrix)) if method.samples else None
    entry |= {
        "MA_interval": found and found.MA,
        "AF_interval": found and found.AF,
        "matrix_interval": found and found.matrix,
    }
    loose = [continual.final_accuracy(continual.to_array([row])) for row in method.normalised]
    entry |= _with_std("MA_normalised", loose)
    entry |= _summarise_routing(method.routing, task_ids)
    failed, failed_std = continual.mean_and_std(method.n_failed)
    assert failed is not None  # a method that ran has at least one seed
    entry |= {
        "n": method.n,
        "n_failed": int(failed) if failed.is_integer() else failed,
        "n_failed_std": failed_std,
    }
    entry["per_seed"] = measured
    if method.note:
        entry["note"] = method.note
    return entry


def _tests(ran: Sequence[MethodResult], tasks: int) -> dict[str, Any]:
    """Each method against TESTED on the same questions: by how much TESTED is ahead in MA, and p."""
    given = {method.name: method.samples for method in ran if method.samples}
    if TESTED not in given:
        return {}
    found = {
        name: statistics.compare(given[TESTED], samples, tasks)
        for name, samples in given.items()
        if name != TESTED
    }
    known = {name: comparison for name, comparison in found.items() if comparison is not None}
    corrected = statistics.holm([comparison.p for comparison in known.values()])
    return {
        name: {
            "MA_difference": round(comparison.difference, DECIMALS) + 0.0,
            "MA_difference_interval": _rounded(comparison.interval),
            "p": _significant(comparison.p),
            "p_holm": _significant(p_holm),
            "mcnemar": [[_significant(p) for p in seed] for seed in comparison.mcnemar],
        }
        for (name, comparison), p_holm in zip(known.items(), corrected, strict=True)
    }


def _significant(p: float) -> float:
    """A p value to three significant digits: four decimals would make the small ones 0."""
    return float(f"{p:.3g}")


def _check(tasks: int, task_ids: Sequence[int], seeds: int, methods: Sequence[MethodResult]) -> None:
    """Raise ValueError if the parts of a summary do not fit each other."""
    names = [method.name for method in methods]
    if len(set(names)) != len(names):
        raise ValueError(f"methods {names}; expected each at most once")
    if len(task_ids) != tasks:
        raise ValueError(f"{len(task_ids)} task ids for {tasks} tasks; expected one for each")
    for method in methods:
        if len(method.matrices) not in (0, 1, seeds):
            raise ValueError(
                f"method {method.name}: {len(method.matrices)} matrices, expected 1 or {seeds} (seeds)"
            )
        for matrix in method.matrices:
            columns = len(continual.to_array(matrix))
            if columns != tasks:
                raise ValueError(f"method {method.name}: matrix of {columns} tasks, expected {tasks}")


def build_summary(
    benchmark_name: str,
    task_names: Sequence[str],
    seeds: Sequence[int],
    methods: Sequence[MethodResult],
    provenance: Mapping[str, Any],
    task_ids: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The content of summary.json; task_ids are the ids in the routing records, default 0..T-1.

    Percentages are means over seeds, deviations stand under `*_std`, cells not reached are null. Methods
    without results stand under "not_run" with the reason. FWT is measured against zero_shot.

    Raises ValueError for a method given twice, or matrices that do not fit the tasks or the seeds.
    """
    ids = range(len(task_names)) if task_ids is None else task_ids
    _check(len(task_names), ids, len(seeds), methods)
    given = {method.name: method for method in methods}
    ran = [given[name] for name in METHOD_TITLES if name in given and given[name].matrices]
    entries = {
        method.name: _summarise_method(method, _zero_shot_rows(given, len(method.matrices)), ids)
        for method in ran
    }
    if "anchor_moe" in entries and "oracle" in entries:
        gap = routing.oracle_gap(entries["oracle"]["MA"], entries["anchor_moe"]["MA"])
        entries["anchor_moe"]["oracle_gap"] = gap
    return {
        "benchmark": benchmark_name,
        "tasks": list(task_names),
        "seeds": list(seeds),
        "methods": _rounded(entries),
        "tests": _tests(ran, len(task_names)),
        "not_run": {
            name: given[name].note if name in given else ""
            for name in METHOD_TITLES
            if name not in entries and (name in given or name in USUAL)
        },
        "formulas": {**continual.FORMULAS, **routing.FORMULAS, **statistics.FORMULAS, **NOTES},
        "provenance": dict(provenance),
    }
