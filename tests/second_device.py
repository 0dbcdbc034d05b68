"""A second device on a machine without one: its tensors have values, which lie in this machine's memory.

As on a GPU, an operation on tensors of two devices raises, and what is made or moved there says where it is.
So whole commands can be run on a device that is not the CPU, and compared with what they do on the CPU. Of a
GPU this shows no speed, no memory, no kernels of its own, no 16 bits and no asynchrony.

torch calls it "meta", the only other device that this build of torch knows everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

from data import command_line
from model.encoders.features import MediaEncoder
from model.language_model.backbone import Backbone

DEVICE = torch.device("meta")
MADE = (torch.tensor, torch.as_tensor)  # these do not ask a dispatch mode
CAST, COPY = torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default  # from one device to another
INDEXED = (  # by tensors of the CPU too
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
)


class There(Tensor):
    """A tensor on the second device; `here` holds its values."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=DEVICE,
        )
        made.here = here.detach()
        return made  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        return self.here.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.here.__reduce_ex__(protocol)  # files hold tensors of the CPU

    def __repr__(self, **unused: Any) -> str:
        return f"There({self.here!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in MADE and _is_there(kwargs.get("device")):
            return There(func(*args, **{**kwargs, "device": "cpu"}))
        return func(*args, **kwargs)


class SecondDevice:
    """While it is entered, tensors can be made on the second device."""

    def __init__(self) -> None:
        self._modes = _Dispatch(), _Functions()

    def __enter__(self) -> None:
        for mode in self._modes:
            mode.__enter__()

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


def compute(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An operation, where its tensors are. Raises RuntimeError for tensors of two devices."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    among_there = any(isinstance(tensor, There) for tensor in given)
    if among_there and func not in (CAST, COPY):
        for tensor in args[:1] if func in INDEXED else given:
            if not isinstance(tensor, There) and tensor.ndim:  # a single number may come from anywhere
                shapes = ", ".join(f"{tuple(t.shape)} on {t.device}" for t in given)
                raise RuntimeError(f"{func}: tensors of two devices: {shapes}")
    asked = kwargs.get("device")
    here_args, here_kwargs = tree_map_only(There, lambda tensor: tensor.here, (tuple(args), dict(kwargs)))
    if asked is not None:
        here_kwargs["device"] = torch.device("cpu")
    result = func(*here_args, **here_kwargs)
    if func is COPY:
        return args[0]
    if not (among_there if asked is None else _is_there(asked)):
        return result
    result = tree_map_only(Tensor, There, result)
    return return_and_correct_aliasing(func, args, kwargs, result) if among_there else result


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device) == DEVICE


def move(module: nn.Module) -> nn.Module:
    """Its parameters and buffers to the second device, in place; shared ones stay shared."""
    moved: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                new = moved.setdefault(id(parameter), nn.Parameter(There(parameter), parameter.requires_grad))
                part._parameters[name] = new
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = There(buffer)
    return module


def become_device() -> None:
    """Let all that this process does from now on, by the repository's commands, take the second device."""
    load = command_line.load_backbone

    def load_there(*args: Any, **kwargs: Any) -> Backbone:
        backbone = load(*args, **{**kwargs, "device": torch.device("cpu")})
        move(backbone.llm)
        move(backbone.encoder)
        return backbone

    command_line.load_backbone = load_there
    Accelerator.device = property(lambda self: DEVICE)  # type: ignore[assignment, method-assign]
    MediaEncoder._products = lambda self: nullcontext()  # type: ignore[assignment, method-assign, return-value]
    fused = "_get_fused_kernels_supported_devices"  # autocast and fused optimisers do not know this device
    for name in ("torch.optim.adam", "torch.optim.optimizer", "torch.utils._foreach_utils"):
        if hasattr(module := import_module(name), fused):
            setattr(module, fused, lambda: ["cpu", DEVICE.type])
    SecondDevice().__enter__()
