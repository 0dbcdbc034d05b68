"""How the backbone is loaded: number format of its weights, attention kernel, and whether this machine has
what that needs.

Quantisation is that of bitsandbytes through transformers: 8 bit is LLM.int8() (T. Dettmers et al., arXiv
2208.07339), 4 bit is NF4 with double quantisation (QLoRA, T. Dettmers et al., arXiv 2305.14314). Linear
layers are quantised; embedding, output head and norms are not.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch

from model.language_model import block_attention
from model.language_model.prefix import PrefixBounds

BITS = (16, 8, 4)
ATTENTION = ("eager", "sdpa", "flash_attention_2", block_attention.NAME)


@dataclass(frozen=True)
class Loading:
    """What a user may choose about the LLM, and the towers, besides their files."""

    dtype: torch.dtype = torch.float32  # of the weights, where they are not quantised, and of the activations
    bits: int = 16  # 8 or 4: quantised linear layers; 16: none
    attn_implementation: str | None = None  # one of ATTENTION; None leaves it to transformers (sdpa)
    towers: torch.dtype = torch.float32  # of the matrix products of towers, projector and aligner
    prefixes: PrefixBounds = PrefixBounds()  # of what experts leave alone; no effect on results

    def __post_init__(self) -> None:
        """Raise ValueError for a value that is not known."""
        if self.bits not in BITS:
            raise ValueError(f"--bits: got {self.bits}, expected one of {', '.join(map(str, BITS))}")
        if self.attn_implementation not in (None, *ATTENTION):
            raise ValueError(
                f"--attn_implementation: got {self.attn_implementation!r}, "
                f"expected one of {', '.join(ATTENTION)}"
            )

    @property
    def quantised(self) -> bool:
        """Whether the weights of linear layers are integers."""
        return self.bits < 16

    @property
    def kernel(self) -> str:
        """The attention kernel, by name."""
        return self.attn_implementation or "sdpa"

    def identity(self) -> dict[str, Any]:
        """What differs from the defaults, for run records: every choice changes results, if only by
        rounding."""
        chosen = {
            "dtype": None if self.dtype == torch.float32 else str(self.dtype).removeprefix("torch."),
            "bits": self.bits if self.quantised else None,
            "attn_implementation": self.kernel if self.kernel != "sdpa" else None,
            "towers": None if self.towers == torch.float32 else str(self.towers).removeprefix("torch."),
        }
        return {key: value for key, value in chosen.items() if value is not None}

    def check(self, device: torch.device) -> None:
        """Raise ValueError, before anything is read, if this machine lacks what the choice needs."""
        if self.quantised:
            name = f"--bits {self.bits} (--load_in_{self.bits}bit)"
            _need_gpu(name, device, "on a CPU its kernels leave out gradients; drop the flag there")
            _need_package(name, "bitsandbytes")
        if self.attn_implementation == "flash_attention_2":
            name = f"--attn_implementation {self.attn_implementation}"
            _need_gpu(
                name, device, "use --attn_implementation sdpa, whose results are equal but for rounding"
            )
            _need_package(name, "flash_attn", "flash-attn --no-build-isolation")
            if self.dtype == torch.float32:
                raise ValueError(f"{name} works in 16 bits only, the LLM is in float32; add --bf16 True")

    def arguments(self, device: torch.device) -> dict[str, Any]:
        """Keyword arguments of transformers' `from_pretrained`."""
        if self.attn_implementation == block_attention.NAME:
            block_attention.register()
        chosen: dict[str, Any] = {"dtype": self.dtype, "attn_implementation": self.attn_implementation}
        if self.quantised:
            from transformers import BitsAndBytesConfig

            chosen["device_map"] = {"": device}
            chosen["quantization_config"] = BitsAndBytesConfig(
                load_in_8bit=self.bits == 8,
                load_in_4bit=self.bits == 4,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=self.dtype,
            )
        return chosen


def _need_gpu(name: str, device: torch.device, advice: str) -> None:
    if device.type != "cuda":
        raise ValueError(f"{name} needs an NVIDIA or AMD GPU, but the LLM goes to {device}: {advice}")


def _need_package(name: str, package: str, install: str = "") -> None:
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"{name} needs the package {package}: pip install {install or package}")
