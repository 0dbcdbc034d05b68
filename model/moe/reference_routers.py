"""Routers that do not compare with anchors: true labels, known texts, given norms, chance.

Legend: B samples, E tasks (columns by sorted task id).
"""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from model.moe.routing_records import RoutingFeatures


def label_scores(labels: Sequence[int] | None, size: int, candidates: Sequence[int]) -> Tensor:
    """1 for the true task. (B, E)

    Raises:
        ValueError: labels missing, of another number, or of a task without anchor.
    """
    if labels is None or len(labels) != size or not set(labels) <= set(candidates):
        raise ValueError(f"oracle routing needs {size} labels among {list(candidates)}, got {labels}")
    return (torch.tensor(labels)[:, None] == torch.tensor(candidates)).double()


def text_scores(
    texts: Sequence[str] | None,
    known: Mapping[str, Mapping[int, int]] | None,
    size: int,
    candidates: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """How often a task asked exactly this question (B, E), and whether none did (B,).

    Raises:
        ValueError: texts or known texts missing, or of another number.
    """
    if known is None or texts is None or len(texts) != size:
        got = None if texts is None else len(texts)
        raise ValueError(f"lookup routing needs known_texts and {size} texts, got {got} texts")
    counts = [[float(known.get(text, {}).get(task, 0)) for task in candidates] for text in texts]
    scores = torch.tensor(counts, dtype=torch.float64).reshape(size, len(candidates))
    return scores, (scores == 0).all(1)


def given_scores(norms: Tensor | None, size: int, candidates: Sequence[int]) -> Tensor:
    """Activation norms as scores. (B, E)

    Raises:
        ValueError: norms missing or of another shape.
    """
    if norms is None or tuple(norms.shape) != (size, len(candidates)):
        got = None if norms is None else tuple(norms.shape)
        raise ValueError(f"autonomy routing needs norms of shape {(size, len(candidates))}, got {got}")
    return norms.detach().cpu().double()


def content_scores(features: RoutingFeatures, seed: int, candidates: Sequence[int]) -> Tensor:
    """1 for a task drawn from a hash of seed and content, so that position and batch do not matter. (B, E)"""
    scores = torch.zeros(len(features), len(candidates), dtype=torch.float64)
    for row in range(len(features)):
        digest = hashlib.sha256(str(seed).encode())
        for name in sorted(features.values):
            if features.present[name][row]:
                value = features.values[name][row].detach().cpu().float().contiguous()
                digest.update(name.encode() + value.numpy().tobytes())
        scores[row, int.from_bytes(digest.digest()[:8], "big") % len(candidates)] = 1.0
    return scores
