"""What the vision tower gave for the latest distinct frames, found by their pixels.

A product's bits may depend on its number of rows. Frames therefore go through the tower in groups of a size
that depends on the number of frames of the clip alone, filled up where fewer are new: a frame gives the same
bits whatever is known already.

Letters: F frames, N frames of a group, P patches, W tower width, H height.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

BOUND = 2**28  # bytes; 113 frames of CLIP-L/336
GROUP = 4  # frames: fewer are slower, since weights are laid out anew for each product


def group_size(frames: int) -> int:
    """Frames of a group: at most GROUP, in as few groups and with as little to fill up as possible."""
    groups = -(-frames // GROUP)
    return -(-frames // groups)


class FrameMemory:
    """Tower outputs (P, W) by content of the frame; the least recently used go where `bound` is reached."""

    def __init__(self, bound: int = BOUND) -> None:
        self.bound, self.size = bound, 0
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self._made_with: object = None

    def get(self, clip_F3HW: Tensor, made_with: object, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """(F, P, W) of a clip on the CPU: what `encode`, (N, 3, H, W) -> (N, P, W), gives.

        Args:
            made_with: what decides the output besides the pixels; when it changes all is forgotten.
        """
        if made_with != self._made_with:
            self._kept.clear()
            self.size, self._made_with = 0, made_with
        size = group_size(len(clip_F3HW))
        keys = [
            bytes([size]) + hashlib.sha256(frame.numpy().data).digest() for frame in clip_F3HW.contiguous()
        ]
        places = {key: place for place, key in reversed(list(enumerate(keys))) if key not in self._kept}
        new = sorted(places.items(), key=lambda item: item[1])
        for start in range(0, len(new), size):
            group = new[start : start + size]
            filled = [place for _, place in group] + [group[-1][1]] * (size - len(group))
            for (key, _), output in zip(group, encode(clip_F3HW[filled]), strict=False):
                self._kept[key] = output.clone()
                self.size += output.nbytes
        for key in keys:
            self._kept.move_to_end(key)
        found = torch.stack([self._kept[key] for key in keys])
        while self.size > self.bound:
            self.size -= self._kept.popitem(last=False)[1].nbytes
        return found
