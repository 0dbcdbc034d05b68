"""Which linear layers of a model carry experts, and what their tensors are called in files.

A layer `ANYTHING.layers.{i}.{block}.{projection}`, block being `mlp` or `self_attn`, has the file key
`model.layers.{i}.{block}.{projection}`, whatever the model is wrapped in.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from model.moe.expert_layers import ExpertLinear

KINDS = ("lora", "mlp", "gated")
TOKENS = ("all", "text", "answer")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
KEY = r"model\.layers\.(?P<layer>\d+)\.(?P<block>self_attn|mlp)\.(?P<projection>\w+?)"
"""What the file key of a layer looks like, a regular expression without the tensor's own part."""
_SHORT = {".lora_A": "_A", ".lora_B": "_B", ".lora_gate": "_G", "": "_W"}  # part of a file key -> in names
_SITE = re.compile(r"(?:^|\.)layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)$")


@dataclass(frozen=True)
class ExpertConfig:
    """What an expert is made of."""

    kind: str = "lora"
    """`lora` (low-rank update), `mlp` (a full copy of the weights, the published kind) or `gated`, which
    needs a GatedConfig."""
    rank: int = 16
    """Rank R of a LoRA expert; unused for `mlp`."""
    alpha: float = 32.0
    """The update is scaled by alpha / rank; unused for `mlp`."""
    layers: str | tuple[int, ...] = "even"
    """`even`, `all`, or the numbers of the layers that carry experts."""
    projections: tuple[str, ...] = MLP
    """Which linear layers of a decoder layer's MLP and attention carry experts."""
    tokens: str = "all"
    """On which tokens the expert acts: `all`; `text`, what follows the last media token, so that the
    audio-visual prefix is the bare backbone's, the same for every expert and question; `answer`, the last
    token of the prompt and the answer, so that the whole prompt is."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.kind == "gated") != isinstance(self, GatedConfig):
            raise ValueError(
                f"expert kind: got {self.kind!r} in a {type(self).__name__}, expected 'lora' or 'mlp', or "
                "'gated' in a GatedConfig"
            )
        if self.kind != "mlp" and (self.rank < 1 or not self.alpha > 0):
            raise ValueError(f"expert rank {self.rank} and alpha {self.alpha}: both must be positive")
        if isinstance(self.layers, str) and self.layers not in ("even", "all"):
            raise ValueError(
                f"expert layers: got {self.layers!r}, expected 'even', 'all' or a tuple of layer numbers"
            )
        if self.tokens not in TOKENS:
            raise ValueError(f"expert tokens: got {self.tokens!r}, expected one of {', '.join(TOKENS)}")
        if not self.layers or not self.projections:
            raise ValueError("expert layers and projections must not be empty")
        if not isinstance(self.layers, str) and len(set(self.layers)) < len(self.layers):
            raise ValueError(f"expert layers: a number occurs twice in {self.layers}")
        if len(set(self.projections)) < len(self.projections):
            raise ValueError(f"expert projections: a name occurs twice in {self.projections}")

    def takes(self, layer: int) -> bool:
        """Whether layer number `layer` carries experts."""
        if isinstance(self.layers, str):
            return self.layers == "all" or layer % 2 == 0
        return layer in self.layers

    @property
    def scale(self) -> float:
        """Factor of the low-rank update, alpha / R."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class GatedConfig(ExpertConfig):
    """A LoRA expert cut into branches that a learned gate weighs token by token (gated.py)."""

    kind: str = "gated"
    branches: int = 4
    """Branches E of rank R / E each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.branches < 1 or self.rank % self.branches:
            raise ValueError(
                f"expert rank {self.rank} in {self.branches} branches: expected at least one branch, and a "
                "rank that they divide evenly"
            )

    @property
    def scale(self) -> float:
        """Factor of every branch, alpha / (R / E): under an even gate that of one LoRA of rank R."""
        return self.alpha * self.branches / self.rank


def site_name(layer: int, projection: str) -> str:
    """`layers.3.mlp.up_proj`: where a projection is expected, for messages."""
    return f"layers.{layer}.{'self_attn' if projection in ATTENTION else 'mlp'}.{projection}"


def in_usual_order(projections: Iterable[str]) -> tuple[str, ...]:
    """Projections as they follow each other in a layer: a safetensors file keeps no order of its own."""
    usual = (*ATTENTION, *MLP)
    return tuple(
        sorted(projections, key=lambda name: (usual.index(name) if name in usual else len(usual), name))
    )


def file_key(name: str) -> str:
    """`anything.layers.3.mlp.up_proj` -> `model.layers.3.mlp.up_proj`, whatever the model is wrapped in."""
    return "model." + name[name.rindex("layers.") :]


def find_sites(llm: nn.Module, config: ExpertConfig) -> list[str]:
    """Names of the linear layers to wrap, by layer number, then in the order of `projections`."""
    found: dict[tuple[int, str], str] = {}
    numbers = set()
    for name, module in llm.named_modules():
        match = _SITE.search(name)
        if match is None or not isinstance(module, nn.Linear):
            continue
        layer, projection = int(match[1]), match[2]
        if isinstance(module, ExpertLinear):
            raise ValueError(f"{name} already carries an expert bank; call its detach() first")
        if (layer, projection) in found:
            raise ValueError(
                f"{name} and {found[layer, projection]} would share the same file key; pass the LLM alone"
            )
        numbers.add(layer)
        found[layer, projection] = name
    chosen = sorted(number for number in numbers if config.takes(number))
    absent = [] if isinstance(config.layers, str) else sorted(set(config.layers) - numbers)
    missing = [site_name(n, p) for n in chosen + absent for p in config.projections if (n, p) not in found]
    if missing or not chosen:
        raise ValueError(
            f"no linear layers {missing or 'layers.*.mlp.*'} in {type(llm).__name__}; "
            "check layers and projections"
        )
    return [found[number, projection] for number in chosen for projection in config.projections]


def parameter_name(key: str) -> str:
    """File key -> name of the parameter in the bank, without dots.

    `model.layers.0.mlp.up_proj.lora_A.weight` -> `layers_0_mlp_up_proj_A`
    """
    layer = layer_key(key)
    part = key.removeprefix(layer).removesuffix(".weight")
    return layer.removeprefix("model.").replace(".", "_") + _SHORT[part]


def layer_key(key: str) -> str:
    """File key of a tensor -> file key of its layer.

    `model.layers.0.mlp.up_proj.lora_A.weight` -> `model.layers.0.mlp.up_proj`
    """
    stem = key.removesuffix(".weight")
    return next((stem.removesuffix(part) for part in _SHORT if part and stem.endswith(part)), stem)
