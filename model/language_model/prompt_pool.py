"""A pool of prompts for a frozen LLM: Learning to Prompt (Z. Wang et al., arXiv 2112.08654), for comparison.

M prompts of L soft tokens have a key each. A sample's query is made of its frozen routing features; the N
prompts with the nearest keys go into its prompt, where `with_soft_tokens` says:

    q = unit(concat_m unit(x_m)),   chosen = the N smallest d_i = 1 - cos(q, k_i)

Keys learn by being pulled to the queries that choose them, `mean over the chosen of d_i` beside the answer
loss. While task t is learned, d_i counts h_i times, the share of the earlier tasks' choices that fell on
prompt i (the paper's equation 4; here (1 + count_i) / (M + counts), so that unused prompts still differ by
d_i): a new task turns to prompts that the earlier ones left. Answering does not ask for counts.

Letters: B samples, M prompts of L tokens, N chosen, D LLM width, Q query width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.language_model.splice import PromptBatch, with_soft_tokens
from model.moe.expert_files import check_finite, check_tensors
from model.moe.files import read_tensor_file, write_tensor_file
from model.moe.routing_records import RoutingFeatures

Place = Literal["text", "answer"]
FORMAT = 1
_ENTRY = "pool"


@dataclass(frozen=True)
class PoolConfig:
    """Sizes of a prompt pool."""

    size: int = 16
    """Prompts M."""
    length: int = 4
    """Soft tokens L of a prompt."""
    top: int = 4
    """Prompts N that a sample chooses."""
    place: Place = "answer"
    """Where they go: `text` or `answer`, see `with_soft_tokens`."""

    def __post_init__(self) -> None:
        if self.length < 1 or not 1 <= self.top <= self.size:
            raise ValueError(
                f"prompt pool: got {self.top} of {self.size} prompts of {self.length} tokens, expected at "
                "least one token, and 1 to all prompts chosen"
            )
        if self.place not in get_args(Place):
            raise ValueError(
                f"prompt pool, place: got {self.place!r}, expected {' or '.join(get_args(Place))}"
            )


@dataclass(frozen=True)
class PoolHeader:
    """What a pool file says about itself."""

    config: PoolConfig
    widths: dict[str, int]
    """Modality -> width of its part of the query, in order."""
    task_id: int
    base_identity: str | None


class PromptPool(nn.Module):
    """Prompts (M, L, D), keys (M, Q) and how often each was chosen by earlier tasks (M,), in that order.

    Args:
        config: sizes.
        widths: modality -> width of its routing feature; their order is that of the query.
        llm_width: D.
    """

    def __init__(self, config: PoolConfig, widths: Mapping[str, int], llm_width: int) -> None:
        super().__init__()
        self.config, self.widths = config, dict(widths)
        self.prompts = nn.Parameter(torch.zeros(config.size, config.length, llm_width))
        self.keys = nn.Parameter(torch.zeros(config.size, sum(self.widths.values())))
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(config.size, dtype=torch.float64))
        self.requires_grad_(False)

    @torch.no_grad()
    def start(self, embedding: nn.Embedding, generator: torch.Generator) -> None:
        """Begin anew: prompts from random words of the vocabulary (B. Lester et al., arXiv 2104.08691), keys
        in random directions, nothing counted."""
        words = torch.randint(embedding.num_embeddings, self.prompts.shape[:2], generator=generator)
        self.prompts.copy_(embedding(words.to(embedding.weight.device)))
        self.keys.copy_(F.normalize(torch.randn(self.keys.shape, generator=generator), dim=-1))
        self.counts.zero_()

    # -- which prompts

    def query(self, features: RoutingFeatures) -> Tensor:
        """Queries of unit length (B, Q) float64 on the CPU; a modality that a sample lacks is zero there.

        Raises:
            ValueError: a feature of another width.
        """
        parts = []
        for name, width in self.widths.items():
            part = torch.zeros(len(features), width, dtype=torch.float64)
            if name in features.values:
                value = features.values[name].detach().cpu()
                if value.shape[1] != width:
                    raise ValueError(
                        f"modality {name!r}: features of width {value.shape[1]}, the prompt pool's keys "
                        f"expect {width}; use the backbone and text feature that it was trained with"
                    )
                there = features.present[name].cpu()
                part[there] = F.normalize(value[there].double(), dim=-1)
            parts.append(part)
        return F.normalize(torch.cat(parts, 1), dim=-1)

    @torch.no_grad()
    def choose(self, query: Tensor, *, learning: bool = False) -> Tensor:
        """Numbers of the N prompts of each query (B, Q), ascending; `learning` shuns much chosen ones.
        (B, N)"""
        distance = self._distances(query)
        if learning:
            distance = distance * (1 + self.counts) / (self.config.size + self.counts.sum())
        return distance.topk(self.config.top, largest=False).indices.sort().values

    def pull(self, query: Tensor, chosen: Tensor) -> Tensor:
        """Mean distance of each query to the keys that it chose. (B, Q), (B, N) -> (B,) float64"""
        return self._distances(query).gather(1, chosen).mean(1)

    def _distances(self, query: Tensor) -> Tensor:
        """1 - cos, in float64 so that no choice hangs on the batch. (B, Q) -> (B, M)"""
        return 1 - query.to(self.keys.device) @ F.normalize(self.keys.double(), dim=-1).T

    def count(self, chosen: Tensor) -> None:
        """Add the choices (B, N) of a task that has been learned."""
        self.counts += torch.bincount(chosen.flatten(), minlength=self.config.size)

    def prompted(self, batch: PromptBatch, chosen: Tensor) -> PromptBatch:
        """The batch with the chosen prompts (B, N) of each row in it, one after another."""
        return with_soft_tokens(batch, list(self.prompts[chosen].flatten(1, 2)), self.config.place)

    # -- state and files

    def state(self) -> dict[str, Tensor]:
        """Copies of all tensors, on the CPU."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.state_dict().items()}

    def load_state(self, state: Mapping[str, Tensor], source: str = "state") -> None:
        """Take over all tensors. Raises ValueError, named with `source`, for missing, unexpected or misshapen
        ones."""
        check_tensors(state, {name: tuple(t.shape) for name, t in self.state_dict().items()}, source)
        self.load_state_dict(dict(state))

    def save(self, path: str | Path, task_id: int, base_identity: str | None) -> None:
        """Write the pool as it is after a task, atomically.

        Raises:
            ValueError: a value is not finite.
            OSError: not writable, or the disk is full.
        """
        state = self.state()
        check_finite(state, path)
        header = PoolHeader(self.config, self.widths, task_id, base_identity)
        write_tensor_file(path, {**state, _ENTRY: {**asdict(header), "format": FORMAT}})


def is_pool(content: Mapping[str, object]) -> bool:
    """Whether this is the content of a pool file."""
    return _ENTRY in content


def load_pool(path: str | Path, base_identity: str | None) -> tuple[PromptPool, int]:
    """A pool on the CPU, and the last task that it learned.

    Raises:
        ValueError: file missing, damaged or no pool, or made for another backbone.
    """
    content = read_tensor_file(path)
    header = _header(content.pop(_ENTRY, None), path)
    if base_identity is not None and header.base_identity != base_identity:
        raise ValueError(
            f"{path}: made for base {str(header.base_identity)[:16]}, the backbone loaded is "
            f"{base_identity[:16]}; load the backbone it was trained on, or train it again"
        )
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    prompts = tensors.get("prompts")
    if prompts is None or prompts.ndim != 3 or len(tensors) < len(content):
        raise ValueError(f"{path}: holds {sorted(content)}, expected prompts (M, L, D), keys and counts")
    pool = PromptPool(header.config, header.widths, prompts.shape[-1])
    pool.load_state(tensors, str(path))
    return pool, header.task_id


def _header(entry: Any, path: str | Path) -> PoolHeader:
    """The header in a file's entry."""
    try:
        if entry.pop("format") != FORMAT:
            raise ValueError(f"another format than {FORMAT}")
        return PoolHeader(**{**entry, "config": PoolConfig(**entry["config"])})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: no prompt pool ({error}); train it with this version of the code"
        ) from error
