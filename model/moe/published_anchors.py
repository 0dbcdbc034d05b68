"""Anchors as the published training keeps them: a running mean of batch means.

`Anchor` (anchors.py) weighs every sample once. The published code looks at the training batches instead:

* A batch has one feature per modality: the mean over all its frames, or over all its audio chunks. Clips of
  a batch are stacked, so one with fewer chunks is filled up, and what the tower makes of the filler counts.
* Text is the mean over all known ids of the padded batch: prompt, answer and padding.
* Every batch weighs 1, whatever its size; samples of later epochs count again.
* Batches are counted, not batches per modality. A modality first seen late is taken as it is, and averaged
  with the count of all batches from then on.

Made only where it is asked for (`--anchor_statistics published`). Tensors only.
Legend: C frames or chunks of a clip, B clips of a batch.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["PublishedAnchors", "batch_feature", "stacked_mean"]


def stacked_mean(clips: Sequence[Tensor], filler: Tensor | None = None) -> Tensor:
    """Mean over the clips (C_b, ...) of a batch after each is filled up to the longest: (...).

    Args:
        clips: features of each clip's frames or chunks, at least one clip.
        filler: what fills up shorter clips (...); None where clips must be equally long.

    Raises:
        ValueError: no clip, a clip without any entry, or clips of unequal length without a filler (the
            published code fails there).
    """
    lengths = [len(clip) for clip in clips]
    if not lengths or not min(lengths):
        raise ValueError(f"clips of lengths {lengths}: at least one clip is needed, and none may be empty")
    missing = sum(max(lengths) - length for length in lengths)
    if missing and filler is None:
        raise ValueError(f"clips of lengths {lengths} cannot be stacked without a filler")
    total = torch.stack([clip.sum(0) for clip in clips]).sum(0)
    if filler is not None:
        total = total + missing * filler
    return total / (max(lengths) * len(lengths))


def batch_feature(
    clips: Sequence[Tensor | None], blank: Tensor, filler: Tensor | None = None
) -> Tensor | None:
    """Feature (...) of one modality of a batch; None where no sample of the batch has the modality.

    Args:
        clips: features (C_b, ...) of every sample, None for one that lacks the modality.
        blank: what stands in for such a sample (C, ...).
        filler: what fills up shorter clips (...); None where clips must be equally long.

    Raises:
        ValueError: as `stacked_mean`.
    """
    if all(clip is None for clip in clips):
        return None
    return stacked_mean([blank if clip is None else clip for clip in clips], filler)


class PublishedAnchors:
    """Running mean `m <- (n m + x) / (n + 1)` of batch features x, with n the batches seen so far."""

    def __init__(self) -> None:
        self.count = 0  # batches seen, n
        self.means: dict[str, Tensor] = {}  # modality -> (...), float32 as published

    def update(self, batch: Mapping[str, Tensor]) -> None:
        """Take one batch in: modality -> feature (...), only the modalities that the batch has.

        Raises:
            ValueError: no modality, a shape other than before, or a value that is not finite; nothing is
                taken in then.
        """
        if not batch:
            raise ValueError("a batch without any modality cannot be counted")
        for name, feature in batch.items():
            if name in self.means and feature.shape != self.means[name].shape:
                raise ValueError(
                    f"modality {name!r}: got shape {tuple(feature.shape)}, "
                    f"batches before had {tuple(self.means[name].shape)}"
                )
            if not bool(torch.isfinite(feature).all()):
                raise ValueError(f"modality {name!r}: batch {self.count} has values that are not finite")
        for name, feature in batch.items():
            feature = feature.detach().float()
            if name in self.means:
                feature = (self.means[name] * self.count + feature) / (self.count + 1)
            self.means[name] = feature.clone()
        self.count += 1
