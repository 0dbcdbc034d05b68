"""What a study needs before it is run: parameters, memory per GPU, FLOPs, disk, steps and hours.

    hours = FLOPs / (GPUs * peak FLOP/s of one * MFU) / 3600

MFU, the share of the peak that a run reaches, is an assumption, and so is that all parts reach it alike.
Formulas: model/planning. Letters of the memory: docs/planning.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from data.workload import Workload
from model.language_model.prefix import BOUND
from model.moe.expert_sites import ExpertConfig
from model.planning.flops import (
    TrainingFlops,
    aligner_flops,
    answer_flops,
    chunk_flops,
    clip_flops,
    frame_flops,
    prefill_flops,
    sound_flops,
    training_flops,
)
from model.planning.memory import (
    STRATEGIES,
    InferenceMemory,
    Setup,
    TrainingMemory,
    inference_memory,
    kept_prefixes,
    prefix_bytes,
    stored_bytes,
    training_memory,
)
from model.planning.sizes import BackboneSizes, Parameters, expert_parameters
from train.config import TrainConfig
from train.plan import count_steps

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
FORMATS = {"fp32": (16, 4), "bf16": (16, 2), "8 bit": (8, 2), "4 bit": (4, 2)}  # name -> bits, bytes a number


@dataclass(frozen=True)
class Machine:
    """What the study would run on."""

    gpus: tuple[int, ...] = (1, 8)  # numbers of GPUs to plan for
    tflops: float = 312.0  # peak of one in bf16; an A100's
    mfu: float = 0.35  # share of the peak that is reached

    def __post_init__(self) -> None:
        """Raise ValueError naming the flag."""
        if not self.gpus or min(self.gpus) < 1:
            raise ValueError(f"--gpus: got {self.gpus}, expected numbers of at least 1")
        if not self.tflops > 0 or not 0 < self.mfu <= 1:
            raise ValueError(
                f"--gpu_tflops {self.tflops}, --mfu {self.mfu}: expected > 0 and a share up to 1"
            )

    def hours(self, flops: float, gpus: int) -> float:
        """Time for so many FLOPs."""
        return flops / (gpus * self.tflops * 1e12 * self.mfu) / 3600


@dataclass(frozen=True)
class Asking:
    """How answers are generated, and from how many experts."""

    rows: int = 16
    new_tokens: int = 32
    chunks: int = 1  # audio windows of a sound


@dataclass(frozen=True)
class MemoryRow:
    """Training memory of one kind of expert, number format and number of GPUs, by strategy."""

    kind: str
    precision: str  # one of FORMATS
    gpus: int
    by_strategy: dict[str, TrainingMemory]


@dataclass(frozen=True)
class Flops:
    """By part, per frame, chunk or sample."""

    frame: int  # vision tower
    chunk: int  # BEATs
    aligner: int  # Q-Former, per chunk
    clip: int  # frames of a clip, towers and projector
    sound: int  # chunks of a sound, tower, Q-Former and projector
    prefill: int  # prompt through the LLM
    answer: int  # prefill and greedy decoding
    prefix: int  # training: of the bare backbone, without gradient
    forward: int
    backward: int
    recomputed: int


@dataclass(frozen=True)
class Run:
    """Steps and hours on so many GPUs."""

    gpus: int
    steps: int  # optimiser steps of all tasks
    encoding_hours: float
    training_hours: float
    evaluation_hours: float


@dataclass(frozen=True)
class MethodPlan:
    """What a method trains and runs that has no plain experts."""

    trains: str  # in words
    parameters: int | None  # None: not counted
    flops: TrainingFlops
    memory: TrainingMemory | None  # as configured, without sharding on one GPU; None: not counted
    training_hours: tuple[float, ...]  # by number of GPUs


@dataclass(frozen=True)
class Budget:
    """Everything that a dry run shows."""

    config: TrainConfig
    machine: Machine
    asking: Asking
    workload: Workload
    sizes: BackboneSizes
    parameters: Parameters
    expert_parameters: dict[str, int]  # kind -> parameters of one expert
    flops: Flops
    memory: TrainingMemory  # of the configured run, without sharding on one GPU
    training: tuple[MemoryRow, ...]
    inference: dict[str, dict[str, InferenceMemory]]  # kind of expert -> number format -> memory
    clip_bytes: int  # in the feature store
    sound_bytes: int
    store_bytes: int
    prefix_each: int  # bytes of one kept prefix
    prefixes_kept: int
    prefixes_distinct: int
    runs: tuple[Run, ...]
    methods: dict[str, MethodPlan] = field(default_factory=dict)  # for which the rest does not hold


def make_budget(
    sizes: BackboneSizes,
    config: TrainConfig,
    workload: Workload,
    machine: Machine,
    asking: Asking,
    bits: int = 16,
    attn_implementation: str = "sdpa",
    prefix_bound: int = BOUND,
) -> Budget:
    """Apply the formulas; `bits` and `attn_implementation` are of the configured run, see Loading; prefixes
    are kept in `prefix_bound` bytes of memory."""
    llm, b = sizes.llm, BYTES[config.precision]
    distinct = distinct_prefixes(workload, config.expert.tokens)
    kept = kept_prefixes(llm, config.expert, workload.longest, distinct, b, prefix_bound)
    past, _ = workload.longest.scope(config.expert.tokens)
    clip, sound = stored_bytes(sizes, chunks=asking.chunks, bytes_per_number=b)
    flops = _flops(sizes, config, workload, asking)
    kinds = {kind: replace(config.expert, kind=kind) for kind in ("lora", "mlp")}
    return Budget(
        config=config,
        machine=machine,
        asking=asking,
        workload=workload,
        sizes=sizes,
        parameters=sizes.parameters,
        expert_parameters={kind: expert_parameters(llm, expert) for kind, expert in kinds.items()},
        flops=flops,
        memory=training_memory(
            sizes,
            config.expert,
            setup(config, bits, b, attn_implementation),
            workload.longest,
            prefixes=kept,
        ),
        training=tuple(
            _memory_row(sizes, config, workload, kind, name, gpus, distinct, prefix_bound)
            for kind in kinds
            for name in FORMATS
            if kind == "lora" or FORMATS[name][0] == 16  # a full expert starts as a copy of the weights
            for gpus in machine.gpus
        ),
        inference={kind: _inference(sizes, expert, workload, asking) for kind, expert in kinds.items()},
        clip_bytes=clip,
        sound_bytes=sound,
        store_bytes=workload.clips * clip + workload.sounds * sound,
        prefix_each=prefix_bytes(llm, past, b),
        prefixes_kept=kept,
        prefixes_distinct=distinct,
        runs=tuple(_run(config, workload, machine, flops, gpus, kept, distinct) for gpus in machine.gpus),
    )


def setup(config: TrainConfig, bits: int, bytes_per_number: int, attn_implementation: str = "sdpa") -> Setup:
    """What the memory formulas need of the training settings."""
    return Setup(
        rows=config.per_device_batch,
        accumulation=config.accumulation,
        bytes_per_number=bytes_per_number,
        checkpointing=config.gradient_checkpointing,
        bits=bits,
        attn_implementation=attn_implementation,
    )


def _memory_row(
    sizes: BackboneSizes,
    config: TrainConfig,
    workload: Workload,
    kind: str,
    name: str,
    gpus: int,
    distinct: int,
    prefix_bound: int,
) -> MemoryRow:
    """All strategies; quantised weights are not divided, so they have the plain one only."""
    expert: ExpertConfig = replace(config.expert, kind=kind)
    bits, b = FORMATS[name]
    kept = kept_prefixes(sizes.llm, expert, workload.longest, distinct, b, prefix_bound)
    by_strategy = {
        strategy: training_memory(
            sizes,
            expert,
            setup(config, bits, b),
            workload.longest,
            strategy=strategy,
            gpus=gpus,
            prefixes=kept,
        )
        for strategy in STRATEGIES
        if bits == 16 or strategy == "plain"
    }
    return MemoryRow(kind, name, gpus, by_strategy)


def _inference(
    sizes: BackboneSizes, expert: ExpertConfig, workload: Workload, asking: Asking
) -> dict[str, InferenceMemory]:
    """Number format -> memory, with the experts of all tasks loaded."""
    return {
        name: inference_memory(
            sizes,
            expert,
            workload.longest,
            experts=workload.tasks,
            rows=asking.rows,
            new_tokens=asking.new_tokens,
            bits=bits,
            bytes_per_number=b,
        )
        for name, (bits, b) in FORMATS.items()
    }


def _flops(sizes: BackboneSizes, config: TrainConfig, workload: Workload, asking: Asking) -> Flops:
    """Per part, for the mean prompt and the mean clip."""
    mean = workload.mean
    training = training_flops(sizes.llm, config.expert, mean, checkpointing=config.gradient_checkpointing)
    frames = round(workload.frames / workload.clips) if workload.clips else 0
    return Flops(
        frame=frame_flops(sizes.vision),
        chunk=chunk_flops(sizes.audio),
        aligner=aligner_flops(sizes.aligner),
        clip=clip_flops(sizes, frames),
        sound=sound_flops(sizes, asking.chunks),
        prefill=prefill_flops(sizes.llm, mean.prompt),
        answer=answer_flops(sizes.llm, mean.prompt, mean.answer),
        prefix=training.prefix,
        forward=training.forward,
        backward=training.backward,
        recomputed=training.recomputed,
    )


def _run(
    config: TrainConfig,
    workload: Workload,
    machine: Machine,
    flops: Flops,
    gpus: int,
    kept: int,
    distinct: int,
) -> Run:
    """Steps and hours of all tasks of one seed, of the method itself (no comparison rows).

    A question is answered twice: by the expert that routing picks, and, for forward transfer, by one that was
    there before its task was learned.
    """
    learned, asked = sum(workload.train_questions), sum(workload.test_questions)
    step_size = config.per_device_batch * config.accumulation * gpus
    each = TrainingFlops(flops.prefix, flops.forward, flops.backward, flops.recomputed)
    training = all_training(config, learned, each, kept, distinct)
    answers = asked * (2 if len(workload.test_questions) > 1 else 1)
    return Run(
        gpus=gpus,
        steps=sum(count_steps(count, step_size, config.epochs) for count in workload.train_questions),
        encoding_hours=machine.hours(workload.clips * flops.clip + workload.sounds * flops.sound, gpus),
        training_hours=machine.hours(training, gpus),
        evaluation_hours=machine.hours(answers * flops.answer, 1),
    )


def distinct_prefixes(workload: Workload, tokens: str) -> int:
    """How many prefixes the training questions have between them, for experts on these tokens."""
    return {"all": 0, "text": workload.contexts, "answer": workload.prompts}[tokens]


def all_training(config: TrainConfig, learned: int, each: TrainingFlops, kept: int, distinct: int) -> int:
    """FLOPs of training on so many questions. Prefixes that do not all fit into memory are taken as computed
    anew for every question and epoch."""
    prefixes = distinct if kept == distinct else config.epochs * learned
    return config.epochs * learned * each.repeated + (prefixes * each.prefix if learned else 0)
