"""Which of thousands of anchors can be the nearest: a pass over an 8-bit copy, with a bound on its error.

Exact scores are float64, so that a decision depends on sample and anchors only, and reading ten thousand
anchors in float64 takes longer than the rest of routing. Here each anchor's unit vectors u_tm are kept as
codes q_tm of 8 bits with one scale s_t, a sixth of the time to read:

    |sum_m w_m <y_m, s_t q_tm> - sum_m w_m <y_m, u_tm>| <= max_m |u_tm - s_t q_tm|,  |y_m| = 1, sum_m w_m = 1

What lies within the bound of the best is left to exact scores.

Legend: E tasks, M modalities, K_m width of a modality.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

LARGE = 1024  # tasks from which a shortlist pays
_STEP = 64  # numbers; widths are filled up to a multiple, as vector units like it
_ROUNDING = 2.0**-7  # of a 16-bit result, relative, with room for the order of sums


class Shortlist:
    """8-bit copies of anchors.

    Args:
        units: modality -> (E, K_m), rows of length 1, or 0 where the anchor's vector is zero.
    """

    def __init__(self, units: Mapping[str, Tensor]) -> None:
        self._places: dict[str, slice] = {}
        width = 0
        for name, unit in units.items():
            self._places[name] = slice(width, width + unit.shape[1])
            width += unit.shape[1]
        count = len(next(iter(units.values())))
        self._width = -(-width // _STEP) * _STEP
        largest = torch.stack([unit.abs().amax(1) for unit in units.values()]).amax(0)
        self._scales = (largest / 127).clamp_min(1e-9).bfloat16()  # (E,)
        self._codes = torch.zeros(count, self._width, dtype=torch.int8)
        scales, self._error = self._scales.double()[:, None], 0.0
        for name, unit in units.items():
            codes = (unit / scales).round().clamp(-127, 127)
            self._codes[:, self._places[name]] = codes.to(torch.int8)
            self._error = max(self._error, float((unit - codes * scales).norm(dim=1).max()))

    def near(self, sample: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
        """Indices of all anchors that may have the largest `sum_m w_m cos(y_m, u_tm)`, ascending.

        Args:
            sample: modality -> y_m (K_m,), of any length.
            weights: of these modalities, not all zero.
        """
        total = sum(weights[name] for name in sample)
        x = torch.zeros(self._width, dtype=torch.float64)
        for name, y in sample.items():
            x[self._places[name]] = weights[name] / total * torch.nn.functional.normalize(y, dim=0)
        low = x.bfloat16()
        # Private, but what torch has for 8-bit weights; the tests hold its results against float64.
        rough = torch._weight_int8pack_mm(low[None], self._codes, self._scales)[0].double()  # (E,)
        rounded = (
            float((x - low).norm()) * 1.1 * len(self._places) ** 0.5
        )  # times the length of a row of codes
        error = self._error + rounded + _ROUNDING * rough.abs()
        return (rough + error >= (rough - error).max()).nonzero()[:, 0]
