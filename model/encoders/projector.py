"""Projectors from a tower's width to the LLM's (LLaVA, H. Liu et al., arXiv 2304.08485; mlp2x_gelu from
LLaVA-1.5).
"""

import re

from torch import nn


def build_projector(kind: str, width: int, llm_width: int) -> nn.Module:
    """Make a projector (..., width) -> (..., llm_width).

    `linear`: one linear map. `mlpNx_gelu`: N linear maps with GELU between, parameters `0.weight`,
    `2.weight`, ...
    `identity`: nothing, for equal widths. Raises: ValueError for another kind.
    """
    if kind == "linear":
        return nn.Linear(width, llm_width)
    if kind == "identity":
        if width != llm_width:
            raise ValueError(f"an identity projector needs equal widths, got {width} and {llm_width}")
        return nn.Identity()
    depth = re.fullmatch(r"mlp([1-9]\d*)x_gelu", kind)
    if depth is None:
        raise ValueError(f"unknown projector type {kind!r}; known are linear, identity and mlpNx_gelu")
    layers: list[nn.Module] = [nn.Linear(width, llm_width)]
    for _ in range(int(depth[1]) - 1):
        layers += [nn.GELU(), nn.Linear(llm_width, llm_width)]
    return nn.Sequential(*layers)
