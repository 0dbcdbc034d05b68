"""Random zoom and flip of an image and its targets.

Zooming in by s makes everything s times nearer, so depth is divided by s; flipping turns the sign of the
normals' x. Targets take the nearest pixel, so that no label, depth or normal is a mixture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ZOOMS = (1.0, 1.2, 1.5)


def augment(
    image: Tensor, targets: dict[str, Tensor], generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """image (3, H, W), targets (H, W) or (C, H, W); returns the same shapes."""
    choice = torch.rand(4, generator=generator).tolist()
    zoom = ZOOMS[int(choice[0] * len(ZOOMS))]
    height, width = image.shape[1:]
    rows, columns = int(height / zoom), int(width / zoom)
    top = int(choice[1] * (height - rows + 1))
    left = int(choice[2] * (width - columns + 1))

    def crop(array: Tensor, mode: str) -> Tensor:
        piece = array[..., top : top + rows, left : left + columns]
        batch = piece.reshape(1, -1, rows, columns)
        corners = True if mode == "bilinear" else None
        out = F.interpolate(batch, (height, width), mode=mode, align_corners=corners)
        return out.view(*array.shape[:-2], height, width)

    if zoom > 1:
        image = crop(image, "bilinear")
        targets = {task: crop(target, "nearest") for task, target in targets.items()}
        if "depth" in targets:
            targets["depth"] = targets["depth"] / zoom
    if choice[3] < 0.5:
        image = image.flip(-1)
        targets = {task: target.flip(-1) for task, target in targets.items()}
        if "normal" in targets:
            targets["normal"] = targets["normal"] * torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    return image, targets
