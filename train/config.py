"""What decides a trained expert: one frozen dataclass, checked when made and saved with every run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from model.moe.experts import ExpertConfig

PRECISIONS = ("fp32", "bf16", "fp16")
SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
ANCHOR_STATISTICS = ("once", "published")
LORA_INITS = ("random", "activations")
EXPERT_INITS = ("scratch", "previous", "nearest", "mean")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run. Every field changes the result; paths, logging and save interval are
    elsewhere."""

    epochs: int = 5  # passes over the task's training questions
    per_device_batch: int = 2  # questions per process and micro-batch
    accumulation: int = 4  # micro-batches per optimiser step
    learning_rate: float = 4e-5  # peak, after warm-up
    weight_decay: float = 0.0  # decoupled (AdamW)
    warmup_ratio: float = 0.03  # share of the steps with rising learning rate
    schedule: str = "cosine"  # one of SCHEDULES, as transformers defines them
    label_smoothing: float = 0.0  # share of every target spread evenly over the vocabulary
    max_grad_norm: float = 1.0  # clipping by the global norm; 0 switches it off
    seed: int = 0  # order of the questions, initial experts
    precision: str = "fp32"  # one of PRECISIONS; experts and optimiser stay in fp32
    gradient_checkpointing: bool = False  # recompute activations: less memory, a third more time
    max_length: int = 2048  # longest prompt with media and answer, in tokens
    expert_init: str = "scratch"  # one of EXPERT_INITS: where a task's expert starts
    lora_dropout: float = 0.0  # share of a LoRA expert's inputs zeroed at random while it learns
    anchor_statistics: str = "once"  # one of ANCHOR_STATISTICS: every sample once, or means of batch means
    lora_init: str = "random"  # one of LORA_INITS: the A of a LoRA expert that starts from nothing
    expert: ExpertConfig = field(default_factory=ExpertConfig)

    def __post_init__(self) -> None:
        """Raise ValueError naming the field, what was got and what is allowed."""
        for name in ("epochs", "per_device_batch", "accumulation", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        for name in ("learning_rate", "weight_decay", "max_grad_norm"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a finite number of at least 0")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio: got {self.warmup_ratio}, expected a share between 0 and 1")
        for name in ("lora_dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a share from 0 to below 1")
        if self.anchor_statistics == "published" and self.expert_init == "nearest":
            raise ValueError(
                "expert_init nearest compares anchors by their statistics, which published ones lack; take "
                "another starting point, or anchor_statistics once"
            )
        if self.lora_dropout and self.expert.kind == "mlp":
            raise ValueError(
                f"lora_dropout: got {self.lora_dropout} with {self.expert.kind} experts, which have no "
                "low-rank path; leave it at 0"
            )
        for name, allowed in (
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("expert_init", EXPERT_INITS),
            ("lora_init", LORA_INITS),
            ("anchor_statistics", ANCHOR_STATISTICS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(allowed)}")

    def identity(self) -> dict[str, Any]:
        """The settings as plain values, for the run record."""
        return asdict(self)
