"""A bank of task experts on the MLP layers of a frozen model, chosen row by row.

    bank = ExpertBank(llm, ExpertConfig(), base_identity)
    bank.add(0, generator=torch.Generator().manual_seed(0))
    with bank.use([0, 0, NO_EXPERT]):
        llm(...)

Works on any module that has linear layers named `...layers.{i}.mlp.{projection}` or `.self_attn.`; knows
nothing of language.
Legend: B batch, R rank.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from model.moe.expert_files import ExpertHeader, check_tensors, read_expert, write_expert
from model.moe.expert_layers import (
    NO_EXPERT,
    Active,
    Expert,
    ExpertLinear,
    HeldExpert,
    LoraLinear,
    MlpLinear,
    Selection,
)
from model.moe.expert_pack import PackedExpert
from model.moe.expert_sites import TOKENS, ExpertConfig, file_key, find_sites, layer_key, parameter_name

__all__ = ["NO_EXPERT", "ExpertBank", "ExpertConfig"]


class ExpertBank(nn.Module):
    """Experts of all tasks so far. The wrapped model keeps its parameters, their names and values.

    The bank owns the expert parameters: register it beside the model (both move with `.to`). LoRA experts
    are held in float32, full-MLP experts in the type of the layer they replace (float32 once they are
    trained; the type of the model's other weights where the layer is quantised).

    Raises:
        ValueError: the model lacks a layer that the configuration names, or carries another bank (`detach`
            it).
    """

    def __init__(self, llm: nn.Module, config: ExpertConfig, base_identity: str | None = None):
        super().__init__()
        self.config = config
        self.base_identity = base_identity
        self.experts = nn.ModuleDict()
        self.active = Active()
        self._tokens: dict[int, str] = {}  # of experts whose scope is not that of the configuration
        self._model = (llm,)  # in a tuple: a module that is not a child
        self.layers: dict[str, ExpertLinear] = {}
        for name in find_sites(llm, config):
            parent, _, child = name.rpartition(".")
            base = llm.get_submodule(name)
            assert isinstance(base, nn.Linear)
            layer = self._wrap(base, file_key(name))
            layer.train(base.training)
            setattr(llm.get_submodule(parent), child, layer)
            self.layers[file_key(name)] = layer
            for parameter in layer.parameters():
                parameter.requires_grad_(False)

    def _wrap(self, base: nn.Linear, key: str) -> ExpertLinear:
        site = key.removeprefix("model.").replace(".", "_")
        if self.config.kind == "mlp":
            return MlpLinear(base, site, self.active)
        return LoraLinear(base, site, self.active, self.config.scale)

    def detach(self) -> None:
        """Give the model its plain linear layers back; the bank's experts stay readable."""
        (llm,) = self._model
        for name, module in list(llm.named_modules()):
            if isinstance(module, ExpertLinear) and module.active is self.active:
                plain = nn.Linear(
                    module.in_features, module.out_features, module.bias is not None, device="meta"
                )
                plain.weight, plain.bias = module.weight, module.bias
                restored = module.quantised[0] if module.quantised else plain
                parent, _, child = name.rpartition(".")
                setattr(llm.get_submodule(parent), child, restored.train(module.training))

    # -- which expert runs

    @contextmanager
    def use(self, ids_B: Sequence[int] | Tensor) -> Iterator[None]:
        """Within the block row b of every batch uses expert `ids_B[b]`; NO_EXPERT is the bare backbone.

        Raises:
            ValueError: no ids, or an id that the bank does not hold.
        """
        ids = tuple(int(task_id) for task_id in ids_B)
        unknown = sorted(set(ids) - set(self.active.experts) - {NO_EXPERT})
        if not ids or unknown:
            raise ValueError(
                f"use: got ids {list(ids)}, the bank holds {self.task_ids}; "
                f"load or train {unknown or 'one'} first"
            )
        before = self.active.selection
        self.active.selection = Selection(ids)
        try:
            yield
        finally:
            self.active.selection = before

    @contextmanager
    def dropping(self, share: float) -> Iterator[None]:
        """Within the block LoRA experts lose `share` of their inputs at random (torch's global generator), as
        in the paper; for training."""
        before, self.active.dropout = self.active.dropout, share
        try:
            yield
        finally:
            self.active.dropout = before

    def recompute_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """`context_fn` of `torch.utils.checkpoint`: recomputation in backward uses the forward's experts."""
        selection = self.active.selection
        return nullcontext(), self.use(selection.ids) if selection is not None else nullcontext()

    # -- which experts there are

    def tokens_of(self, task_id: int) -> str:
        """On which tokens an expert acts, one of TOKENS; the configuration's for the bare backbone."""
        return self._tokens.get(task_id, self.config.tokens)

    def act_on(self, task_id: int, tokens: str) -> None:
        """Say, before it is added, that an expert acts on other tokens than those of the configuration.

        Raises:
            ValueError: no such scope, or the bank holds the expert already.
        """
        if tokens not in TOKENS or task_id in self.active.experts:
            raise ValueError(
                f"expert {task_id} on {tokens!r} tokens: expected one of {', '.join(TOKENS)}, and before the "
                "expert is added"
            )
        self._tokens[task_id] = tokens

    @property
    def task_ids(self) -> list[int]:
        """Ids of the experts held, sorted."""
        return sorted(self.active.experts)

    @torch.inference_mode(False)
    def add(
        self,
        task_id: int,
        *,
        init: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Add an expert that starts from `init` (a state as of `state`) or from nothing.

        From nothing: A uniform in +-1/sqrt(in) and B zero, so that it starts as the bare backbone; a
        full-MLP expert starts as a copy of the backbone's weights.

        Raises:
            ValueError: the id is taken or negative, `init` does not fit, or a fresh LoRA expert gets no
                generator.
        """
        if task_id in self.active.experts:
            raise ValueError(
                f"expert {task_id} exists; remove it first or choose another id than {self.task_ids}"
            )
        if init is None:
            init = self.fresh_state(generator)
        self.load_state(task_id, init)

    def fresh_state(self, generator: torch.Generator | None) -> dict[str, Tensor]:
        """The tensors of an expert that starts from nothing, as `add` describes it; the bank stays as it is.

        Raises:
            ValueError: a fresh LoRA expert gets no generator, or the weights to be copied are quantised.
        """
        if self.config.kind == "mlp":
            if any(layer.quantised for layer in self.layers.values()):
                raise ValueError(
                    "a fresh full-MLP expert is a copy of the backbone's weights, but these are quantised; "
                    "load the backbone with --bits 16, or train LoRA experts"
                )
            return {f"{key}.weight": layer.weight.detach() for key, layer in self.layers.items()}
        if generator is None:
            raise ValueError(
                "a fresh LoRA expert needs a generator; pass torch.Generator().manual_seed(SEED)"
            )
        state = {}
        for key, layer in self.layers.items():
            a = torch.rand(self.config.rank, layer.in_features, generator=generator)
            state[f"{key}.lora_A.weight"] = (2 * a - 1) / math.sqrt(layer.in_features)
            state[f"{key}.lora_B.weight"] = torch.zeros(layer.out_features, self.config.rank)
        return state

    def remove(self, task_id: int) -> None:
        """Forget an expert; its file, if any, stays.

        Raises:
            ValueError: the bank does not hold it.
        """
        self._get(task_id)
        del self.active.experts[task_id]
        self._tokens.pop(task_id, None)
        if str(task_id) in self.experts:  # not those of packs
            del self.experts[str(task_id)]

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape of every tensor of an expert, in file order."""
        shapes: dict[str, tuple[int, ...]] = {}
        for key, layer in self.layers.items():
            if self.config.kind == "mlp":
                shapes[f"{key}.weight"] = (layer.out_features, layer.in_features)
            else:
                shapes[f"{key}.lora_A.weight"] = (self.config.rank, layer.in_features)
                shapes[f"{key}.lora_B.weight"] = (layer.out_features, self.config.rank)
        return shapes

    def parameters_of(self, task_id: int) -> dict[str, nn.Parameter]:
        """File key -> parameter of one expert, in file order.

        Raises:
            ValueError: the bank does not hold it.
        """
        expert = self._own(task_id)
        return {key: expert.get_parameter(parameter_name(key)) for key in self.expected_shapes()}

    def state(self, task_id: int) -> dict[str, Tensor]:
        """Copies of an expert's tensors by file key, on the CPU."""
        held = {key: self._get(task_id).get(parameter_name(key)) for key in self.expected_shapes()}
        return {key: tensor.detach().to("cpu", copy=True) for key, tensor in held.items()}

    @torch.inference_mode(False)
    def load_state(self, task_id: int, state: Mapping[str, Tensor], source: str = "state") -> None:
        """Add an expert, or overwrite the values of one (its parameters stay, and so do optimisers on them).

        Raises:
            ValueError: a key is missing or unexpected or a shape differs, named with `source`.
        """
        if task_id < 0:
            raise ValueError(f"{source}: task id {task_id}; ids count from 0")
        check_tensors(state, self.expected_shapes(), source)
        tensors = {}
        for key in self.expected_shapes():
            like = self.layers[layer_key(key)].weight
            dtype = torch.float32
            if self.config.kind == "mlp":
                dtype = like.dtype if like.is_floating_point() else self._float_type()
            tensors[parameter_name(key)] = state[key].detach().to(like.device, dtype, copy=True)
        present = self.active.experts.get(task_id)
        if isinstance(present, Expert):
            with torch.no_grad():
                for name, parameter in present.named_parameters():
                    parameter.copy_(tensors[name])
            return
        self.experts[str(task_id)] = self.active.experts[task_id] = Expert(tensors)

    def add_packed(self, experts: Mapping[int, PackedExpert], *, own_ids: bool = True) -> None:
        """Add LoRA experts that stay in their packs until they are to learn, id -> expert.

        Args:
            own_ids: the ids are the tasks that the experts were trained for.

        Raises:
            ValueError: an id is taken, or an expert is not of the bank's make, base or shapes.
        """
        shapes = self.expected_shapes()
        for task_id, expert in experts.items():
            if task_id in self.active.experts:
                raise ValueError(f"expert {task_id} exists; remove it first")
            task = task_id if own_ids else expert.entry.header.task_id
            expert.check(replace(self._header(task_id), task_id=task), shapes)
        self.active.experts.update(experts)

    def _float_type(self) -> torch.dtype:
        """Type of the model's weights that are not quantised."""
        (llm,) = self._model
        return next(p.dtype for p in llm.parameters() if p.is_floating_point())

    def train_only(self, task_id: int) -> list[nn.Parameter]:
        """Let one expert learn and nothing else; returns its parameters in file order.

        A full-MLP expert held in 16 bits becomes float32 here.
        """
        expert = self._own(task_id)
        for module in (*self._model, self):
            module.requires_grad_(False)
        expert.float().requires_grad_(True)
        return list(self.parameters_of(task_id).values())

    # -- files

    def save(self, task_id: int, path: str | Path) -> None:
        """Write one expert, atomically: LoRA in float32, full weights in the type of those they replace.

        Raises:
            ValueError: a value is not finite (the training diverged).
            OSError: the folder cannot be written or the disk is full.
        """
        state = self.state(task_id)
        if self.config.kind == "mlp":
            state = {
                f"{key}.weight": state[f"{key}.weight"].to(layer.weight.dtype)
                for key, layer in self.layers.items()
            }
        write_expert(path, self._header(task_id), state)

    def load(self, task_id: int, path: str | Path) -> None:
        """Add or replace an expert from its file. A file that names no base loads with a warning.

        Raises:
            ValueError: file missing, damaged or carrying code; another kind, rank, alpha, task or base;
                wrong keys or shapes.
        """
        wanted = self._header(task_id)
        self.load_state(task_id, read_expert(path, wanted), str(path))

    def _header(self, task_id: int) -> ExpertHeader:
        config = self.config
        lora = config.kind != "mlp"
        return ExpertHeader(
            kind=config.kind,
            rank=config.rank if lora else None,
            alpha=config.alpha if lora else None,
            task_id=task_id,
            base_identity=self.base_identity,
            tokens=self.tokens_of(task_id),
        )

    def _get(self, task_id: int) -> HeldExpert:
        if task_id not in self.active.experts:
            raise ValueError(f"no expert {task_id}; the bank holds {self.task_ids}")
        return self.active.experts[task_id]

    def _own(self, task_id: int) -> Expert:
        """An expert in the bank's own memory: one that stayed in its pack is copied."""
        expert = self._get(task_id)
        if not isinstance(expert, Expert):
            self.load_state(task_id, self.state(task_id))
            expert = self._get(task_id)
        assert isinstance(expert, Expert)
        return expert
