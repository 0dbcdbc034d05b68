"""The linear layer that adds each row's own expert.

Legend: B batch, T tokens, R rank, U distinct experts in a batch; `in`, `out` widths of the layer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NO_EXPERT = -1
"""Task id of a row that the bare backbone answers."""


class Expert(nn.Module):
    """The parameters of one task's expert, one or two per layer, under names without dots."""

    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))


@dataclass
class Selection:
    """Which expert each row of the running batch uses, and what can be computed once for all its steps."""

    ids: tuple[int, ...]
    """One task id per row."""
    only: int | None = None
    """The id that all rows share, if they do."""
    distinct: tuple[int, ...] = ()
    """Sorted task ids that occur, without NO_EXPERT."""
    gathered: dict[str, tuple[tuple[object, ...], Tensor, Tensor]] = field(default_factory=dict)
    """Layer -> (stamp, A, B) gathered by row, so that decoding gathers once and not per token."""

    def __post_init__(self) -> None:
        found = sorted(set(self.ids))
        self.only = found[0] if len(found) == 1 else None
        self.distinct = tuple(task for task in found if task != NO_EXPERT)

    def rows(self, task_id: int, device: torch.device) -> Tensor:
        """Positions of the rows that use `task_id`. (rows,)"""
        return torch.tensor([row for row, task in enumerate(self.ids) if task == task_id], device=device)

    def expert_rows(self, device: torch.device) -> Tensor:
        """Positions of the rows that use any expert. (rows,)"""
        return torch.tensor([row for row, task in enumerate(self.ids) if task != NO_EXPERT], device=device)


@dataclass
class Active:
    """What a bank shares with its layers: the experts it holds and the selection in force."""

    experts: dict[int, Expert] = field(default_factory=dict)
    selection: Selection | None = None
    dropout: float = 0.0
    """Share of a LoRA expert's inputs that is zeroed, the rest scaled up; above 0 while one learns."""


class ExpertLinear(nn.Linear):
    """A frozen linear layer that asks `active` for each row's expert; parameters and their names stay.

    Raises (when called):
        RuntimeError: outside `ExpertBank.use`, or with another number of rows than ids.
    """

    def __init__(self, base: nn.Linear, site: str, active: Active):
        nn.Module.__init__(self)  # the parameters are the base's own, not new ones
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        # A quantised layer's weight is packed and only itself can compute with it; in a tuple: not a child.
        self.quantised = () if base.weight.is_floating_point() else (base,)
        self.site = site
        self.active = active

    def selection_for(self, x: Tensor) -> Selection:
        """The selection in force, checked against the batch."""
        selection = self.active.selection
        if selection is None:
            raise RuntimeError(
                f"expert layer {self.site} called outside `with bank.use(ids):`; say which experts to use"
            )
        if x.shape[0] != len(selection.ids):
            raise RuntimeError(
                f"expert layer {self.site}: batch of {x.shape[0]} rows, but `use` got "
                f"{len(selection.ids)} ids; pass one per row"
            )
        return selection

    def base(self, x: Tensor) -> Tensor:
        """The bare backbone's layer. (B, ..., in) -> (B, ..., out)"""
        for layer in self.quantised:
            return layer(x)  # type: ignore[no-any-return]
        return F.linear(x, self.weight, self.bias)

    def expert(self, x: Tensor, task_id: int) -> Tensor:
        """All rows through one expert. (B, ..., in) -> (B, ..., out)"""
        raise NotImplementedError

    def mixed(self, x: Tensor, selection: Selection) -> Tensor:
        """Each row through its own expert. (B, ..., in) -> (B, ..., out)"""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        selection = self.selection_for(x)
        if selection.only is None:
            return self.mixed(x, selection)
        return self.base(x) if selection.only == NO_EXPERT else self.expert(x, selection.only)


class LoraLinear(ExpertLinear):
    """`W x + (alpha / R) B A x`, each row's own A (R, in) and B (out, R): LoRA (arXiv 2106.09685).

    While an expert learns, its own x may be thinned by dropout; `W x` never is.
    """

    def __init__(self, base: nn.Linear, site: str, active: Active, scale: float):
        super().__init__(base, site, active)
        self.scale = scale

    def factors(self, task_id: int) -> tuple[Tensor, Tensor]:
        """A (R, in) and B (out, R) of one task."""
        expert = self.active.experts[task_id]
        return getattr(expert, self.site + "_A"), getattr(expert, self.site + "_B")

    def expert(self, x: Tensor, task_id: int) -> Tensor:
        return self._add(self.base(x), x, task_id)

    def _add(self, y: Tensor, x: Tensor, task_id: int) -> Tensor:
        a, b = self.factors(task_id)
        a, b = a.to(x.dtype), b.to(x.dtype)
        low = F.linear(self._thin(x), a)  # (B, ..., R)
        return torch.addmm(y.flatten(0, -2), low.flatten(0, -2), b.t(), alpha=self.scale).view(y.shape)

    def _thin(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.active.dropout) if self.active.dropout else x

    def mixed(self, x: Tensor, selection: Selection) -> Tensor:
        y = self.base(x)
        if torch.is_grad_enabled() and any(
            f.requires_grad for t in selection.distinct for f in self.factors(t)
        ):
            for task_id in selection.distinct:
                rows = selection.rows(task_id, x.device)
                y = y.index_copy(0, rows, self._add(y[rows], x[rows], task_id))
            return y
        a, b = self._gather(x, selection)  # (B', R, in), (B', out, R)
        x = self._thin(x)
        if len(a) == len(x):
            low = torch.bmm(x.flatten(1, -2), a.transpose(1, 2))
            return torch.baddbmm(y.flatten(1, -2), low, b.transpose(1, 2), alpha=self.scale).view(y.shape)
        rows = selection.expert_rows(
            x.device
        )  # the other rows are not touched: they equal the backbone bit for bit
        low = torch.bmm(x[rows].flatten(1, -2), a.transpose(1, 2))
        added = torch.bmm(low, b.transpose(1, 2)).view(len(rows), *y.shape[1:])
        return y.index_add(0, rows, added, alpha=self.scale)

    def _gather(self, x: Tensor, selection: Selection) -> tuple[Tensor, Tensor]:
        factors = [self.factors(task_id) for task_id in selection.distinct]
        stamp = (x.dtype, x.device, *((id(f), f._version) for pair in factors for f in pair))
        kept = selection.gathered.get(self.site)
        if kept is None or kept[0] != stamp:
            place = {task_id: position for position, task_id in enumerate(selection.distinct)}
            index = torch.tensor([place[t] for t in selection.ids if t != NO_EXPERT], device=x.device)
            a = torch.stack([a for a, _ in factors]).to(x.dtype)[index]  # (U, R, in) -> (B', R, in)
            b = torch.stack([b for _, b in factors]).to(x.dtype)[index]  # (U, out, R) -> (B', out, R)
            kept = (stamp, a, b)
            selection.gathered[self.site] = kept
        return kept[1], kept[2]


class MlpLinear(ExpertLinear):
    """`W_k x`: each row's own full weight (out, in), as published. Rows are grouped by expert."""

    def expert(self, x: Tensor, task_id: int) -> Tensor:
        weight = getattr(self.active.experts[task_id], self.site + "_W")
        return F.linear(x, weight.to(x.dtype), self.bias)

    def mixed(self, x: Tensor, selection: Selection) -> Tensor:
        # Bare rows go through the whole batch's product, so that they equal the backbone bit for bit.
        bare = NO_EXPERT in selection.ids
        y = self.base(x) if bare else None
        for task_id in selection.distinct:
            rows = selection.rows(task_id, x.device)
            part = self.expert(x[rows], task_id)
            y = part.new_empty(len(x), *part.shape[1:]) if y is None else y
            y = y.index_copy(0, rows, part)
        assert y is not None
        return y


@contextmanager
def bare_backbone(model: nn.Module, rows: int) -> Iterator[None]:
    """Within the block a model's expert layers, of whatever bank, leave batches of `rows` rows alone.

    For callers that hold the model and do not know whether it carries experts.
    """
    layers = [module for module in model.modules() if isinstance(module, ExpertLinear)]
    banks = {id(layer.active): layer.active for layer in layers}.values()
    before = [active.selection for active in banks]
    for active in banks:
        active.selection = Selection((NO_EXPERT,) * rows)
    try:
        yield
    finally:
        for active, selection in zip(banks, before, strict=True):
            active.selection = selection
