"""The linear layer that adds each row's own expert.

Legend: B batch, T tokens, R rank, U distinct experts in a batch; `in`, `out` widths of the layer.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NO_EXPERT = -1
"""Task id of a row that the bare backbone answers."""


class HeldExpert(Protocol):
    """What a layer asks of an expert, wherever its tensors are."""

    def get(self, name: str) -> Tensor:
        """One tensor."""

    def versions(self, names: Sequence[str]) -> tuple[object, ...]:
        """Equal as long as these tensors are the same and have the same values."""


class Expert(nn.Module):
    """The parameters of one task's expert, one or two per layer, under names without dots."""

    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))

    def get(self, name: str) -> Tensor:
        return self._parameters[name]  # type: ignore[return-value]

    def versions(self, names: Sequence[str]) -> tuple[object, ...]:
        parameters = [self.get(name) for name in names]
        return tuple((id(parameter), parameter._version) for parameter in parameters)


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

    experts: dict[int, HeldExpert] = field(default_factory=dict)
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
        self.names = (site + "_A", site + "_B")

    def factors(self, task_id: int) -> tuple[Tensor, Tensor]:
        """A (R, in) and B (out, R) of one task."""
        expert = self.active.experts[task_id]
        return expert.get(self.names[0]), expert.get(self.names[1])

    def expert(self, x: Tensor, task_id: int) -> Tensor:
        assert self.active.selection is not None
        if self._learns((task_id,)):
            return self._add(self.base(x), x, task_id)
        y = self.base(x)
        a, b = self._gather(x, self.active.selection)  # (1, R, in), (1, out, R)
        low = F.linear(self._thin(x), a[0])  # (B, ..., R)
        return _add_product(y.flatten(0, -2), low.flatten(0, -2), b[0].t(), self.scale).view(y.shape)

    def _learns(self, task_ids: Sequence[int]) -> bool:
        return torch.is_grad_enabled() and any(f.requires_grad for t in task_ids for f in self.factors(t))

    def _add(self, y: Tensor, x: Tensor, task_id: int) -> Tensor:
        a, b = (factor.to(x) for factor in self.factors(task_id))
        low = F.linear(self._thin(x), a)  # (B, ..., R)
        return torch.addmm(y.flatten(0, -2), low.flatten(0, -2), b.t(), alpha=self.scale).view(y.shape)

    def _thin(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.active.dropout) if self.active.dropout else x

    def mixed(self, x: Tensor, selection: Selection) -> Tensor:
        y = self.base(x)
        if self._learns(selection.distinct):
            for task_id in selection.distinct:
                rows = selection.rows(task_id, x.device)
                y = y.index_copy(0, rows, self._add(y[rows], x[rows], task_id))
            return y
        a, b = self._gather(x, selection)  # (B', R, in), (B', out, R)
        x = self._thin(x)
        if len(a) == len(x):
            low = torch.bmm(x.flatten(1, -2), a.transpose(1, 2))
            return _add_product(y.flatten(1, -2), low, b.transpose(1, 2), self.scale).view(y.shape)
        rows = selection.expert_rows(
            x.device
        )  # the other rows are not touched: they equal the backbone bit for bit
        low = torch.bmm(x[rows].flatten(1, -2), a.transpose(1, 2))
        added = torch.bmm(low, b.transpose(1, 2)).view(len(rows), *y.shape[1:])
        return y.index_add(0, rows, added, alpha=self.scale)

    def _gather(self, x: Tensor, selection: Selection) -> tuple[Tensor, Tensor]:
        """A (B', R, in) and B (B', out, R) of the rows with an expert, in the type of x; one row if they
        share it."""
        experts = self.active.experts
        versions = [v for t in selection.distinct for v in experts[t].versions(self.names)]
        stamp = (x.dtype, x.device, *versions)
        kept = selection.gathered.get(self.site)
        if kept is None or kept[0] != stamp:
            factors = {task_id: self.factors(task_id) for task_id in selection.distinct}
            ids = selection.distinct if selection.only is not None else selection.ids
            rows = [factors[task_id] for task_id in ids if task_id != NO_EXPERT]
            kept = (stamp, torch.stack([a for a, _ in rows]).to(x), torch.stack([b for _, b in rows]).to(x))
            selection.gathered[self.site] = kept
        return kept[1], kept[2]


def _add_product(y: Tensor, low: Tensor, b: Tensor, scale: float) -> Tensor:
    """y + scale low b, one matrix or a batch of them; in place where no gradient needs y."""
    if y.requires_grad or low.requires_grad:
        add = torch.addmm if y.ndim == 2 else torch.baddbmm
        return add(y, low, b, alpha=scale)
    return y.addmm_(low, b, alpha=scale) if y.ndim == 2 else y.baddbmm_(low, b, alpha=scale)


class MlpLinear(ExpertLinear):
    """`W_k x`: each row's own full weight (out, in), as published. Rows are grouped by expert."""

    def expert(self, x: Tensor, task_id: int) -> Tensor:
        weight = self.active.experts[task_id].get(self.site + "_W")
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


@contextmanager
def record_inputs(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Within the block the inputs of these layers are kept: key -> one tensor (B, T, in) per call."""
    kept: dict[str, list[Tensor]] = {key: [] for key in layers}
    hooks = []
    for key, layer in layers.items():

        def keep(_: nn.Module, inputs: tuple[Tensor, ...], rows: list[Tensor] = kept[key]) -> None:
            rows.append(inputs[0].detach())

        hooks.append(layer.register_forward_pre_hook(keep))
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()
