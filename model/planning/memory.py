"""Bytes of a run: weights, experts, optimiser, activations, keys and values.

Counted is what tensors hold at the moment of the peak; an allocator's rounding and the CUDA context (0.5 to
1 GB) come on top. What a layer keeps for backward follows from transformers' decoder layers, the expert
layers here and PyTorch's rule: a linear layer keeps its input only if its weight learns.

Letters: B rows, T tokens per row that are computed, P kept prefix, D width, M hidden width of an MLP, R rank,
V vocabulary, N GPUs, b bytes of a number (fp32 4, bf16 2).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from model.language_model.block_attention import NAME as BLOCKS
from model.language_model.block_attention import query_blocks
from model.language_model.prefix import BOUND
from model.moe.expert_sites import ExpertConfig
from model.planning.sizes import (
    BackboneSizes,
    LLMSizes,
    Parameters,
    PromptTokens,
    branches,
    expert_parameters,
)

FP32 = 4
BUCKET = 200_000_000  # elements of a DeepSpeed bucket, scripts/zero2.json
LIVE = 1_000_000_000  # elements that ZeRO-3 gathers at most, DeepSpeed's stage3_max_live_parameters
STRATEGIES = ("plain", "zero2", "zero3", "zero2_offload", "zero3_offload")


@dataclass(frozen=True)
class Setup:
    """What decides the memory of training besides sizes and prompts."""

    rows: int  # B, questions of a micro-batch
    accumulation: int  # micro-batches of a step
    bytes_per_number: int  # b, of weights and activations
    checkpointing: bool
    bits: int = 16  # of the LLM's linear layers
    attn_implementation: str = "sdpa"


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one GPU at the peak of a step, and `host`: what offloading keeps in the machine's memory."""

    llm: int
    encoders: int
    expert: int  # the trained one, its copies in other number formats and DeepSpeed's buckets
    optimiser: int
    gradients: int  # as far as they stand beside the activations
    activations: int
    prefixes: int  # keys and values kept of prefixes that experts leave alone
    host: int = 0

    @property
    def total(self) -> int:
        """Bytes on the GPU."""
        return sum(getattr(self, field.name) for field in fields(self) if field.name != "host")


def llm_bytes(parameters: Parameters, bits: int, bytes_per_number: int) -> int:
    """Weights of the LLM.

    16 bits: b per parameter. 8 bits: one byte per weight of a linear layer and an fp32 scale per output row.
    4 bits (NF4, double quantisation): half a byte per weight, a byte per 64 weights, an fp32 scale per
    64 * 256. The rest (embedding, head, norms) stays at b.
    """
    rest = (parameters.llm - parameters.llm_linear) * bytes_per_number
    if bits == 8:
        return rest + parameters.llm_linear + FP32 * parameters.llm_linear_rows
    if bits == 4:
        return rest + parameters.llm_linear // 2 + parameters.llm_linear // 64 + parameters.llm_linear // 4096
    return parameters.llm * bytes_per_number


def prefix_bytes(llm: LLMSizes, tokens: int, bytes_per_number: int) -> int:
    """Keys and values of so many tokens in all layers, `2 layers T kv_heads head_width b`."""
    return 2 * llm.layers * tokens * llm.keys * bytes_per_number


def kept_prefixes(
    llm: LLMSizes, expert: ExpertConfig, prompt: PromptTokens, distinct: int, b: int, bound: int = BOUND
) -> int:
    """How many of the distinct prefixes fit into `bound` bytes of memory, at least one."""
    past, _ = prompt.scope(expert.tokens)
    return fitting_prefixes(llm, past, distinct, b, bound)


def fitting_prefixes(llm: LLMSizes, past: int, distinct: int, b: int, bound: int = BOUND) -> int:
    """How many of the distinct prefixes of P tokens fit into `bound` bytes, at least one; 0 of no tokens."""
    return min(distinct, max(1, bound // max(1, prefix_bytes(llm, past, b)))) if past else 0


def layer_activations(
    llm: LLMSizes, expert: ExpertConfig | None, setup: Setup, tokens: int, past: int, layer: int
) -> int:
    """What one layer keeps for backward, in the layer of the first expert only from that expert on; expert
    None: no layer has one, and soft tokens before the first layer learn.

    Attention: fp32 input of the norm, queries, output, log-sum, keys and values (a copy per query head where
    a mask is needed and heads share keys), mask; eager attention the probabilities instead of the log-sum.
    MLP: fp32 input of the norm; gate, its SiLU and up. Under experts also the inputs of their linear layers,
    `A x`, and for full experts the weight in the activations' number format.
    """
    b, rows = setup.bytes_per_number, setup.rows
    computed, keys = rows * tokens, rows * (past + tokens)
    first = next(number for number in range(llm.layers) if expert.takes(number)) if expert else -1
    inside, learns = layer > first, set(expert.projections) if expert and expert.takes(layer) else set()
    heads = inside or bool(learns & {"q_proj", "k_proj", "v_proj"})
    attention = heads or "o_proj" in learns
    total = FP32 * computed * (llm.width + 1) * (inside + attention)  # norms
    if heads:
        padded = rows > 1 or past > 0
        masked = padded and setup.attn_implementation != "flash_attention_2"
        shared = llm.attention if masked or setup.attn_implementation == "eager" else llm.keys
        total += b * (2 * computed * llm.attention + 2 * keys * shared)
        pairs = computed * (past + tokens)
        if setup.attn_implementation == "eager":
            total += llm.heads * pairs * (FP32 + (b if b < FP32 else 0))
        elif setup.attn_implementation == BLOCKS:  # what each block of queries sees; keys are not copied
            seen = sum((q.stop - q.start) * end for q, _, end in query_blocks(tokens, past + tokens))
            total += b * rows * llm.heads * seen
            total -= b * (
                2 * keys * (shared - llm.keys) + computed * llm.attention * ("o_proj" not in learns)
            )
        else:
            total += FP32 * computed * llm.heads + (b * pairs if masked else 0)
    total += b * computed * llm.width * bool(learns & {"q_proj", "k_proj", "v_proj"})
    total += b * computed * llm.attention * ("o_proj" in learns and not heads)
    gate, up = attention or "gate_proj" in learns, attention or "up_proj" in learns
    total += b * computed * llm.mlp * (2 * gate + up)  # gate and up for SiLU's gradient, SiLU for that of up
    total += b * computed * llm.width * bool(learns & {"gate_proj", "up_proj"})
    total += b * computed * llm.mlp * ("down_proj" in learns)
    for name in learns:
        assert expert is not None
        width_in, width_out = llm.projection(name)
        if expert.kind != "mlp":
            total += b * computed * expert.rank
            total += b * expert.rank * (width_in + width_out) * (b < FP32)
            if gates := branches(expert):  # weighed `A x`, weights in fp32 and as they are multiplied, and G
                total += computed * (b * expert.rank + FP32 * gates + b * gates * (b < FP32))
                total += b * gates * width_in * (b < FP32)
        elif b < FP32 and (inside or name == "down_proj"):
            total += b * width_in * width_out
    return total


def activation_bytes(
    llm: LLMSizes, expert: ExpertConfig, setup: Setup, prompt: PromptTokens, gradients: int = 0
) -> int:
    """Activations at the peak of one micro-batch, every row as long as `prompt`, with the growing gradients.

    Args:
        gradients: bytes of the expert's gradients where they are not there beforehand.
    """
    saving = setup.checkpointing and expert.tokens == "all"
    return peak_activations(llm, expert, setup, prompt.scope(expert.tokens), prompt.answer, saving, gradients)


def peak_activations(
    llm: LLMSizes,
    expert: ExpertConfig | None,
    setup: Setup,
    scope: tuple[int, int],
    answer: int,
    saving: bool,
    gradients: int = 0,
) -> int:
    """See `activation_bytes`; scope: kept prefix P and computed tokens T of a row; saving: by checkpointing.

    The peak is one of three. At the end of forward after a prefix: the batch's stacked keys and values stand
    beside what the layers keep until the last one has appended to its own. Behind the layers: fp32 input of
    the last norm, fp32 log-probabilities at the answer positions, and four gradients of the norm in fp32 or
    two of the logits. In the backward pass of a layer: what it and those before it keep (with checkpointing
    their inputs, and all of itself), three gradients M wide, and the gradients of the experts from it on.
    """
    past, tokens = scope
    b, computed = setup.bytes_per_number, setup.rows * tokens
    experts = [layer for layer in range(llm.layers) if expert is None or expert.takes(layer)]
    peak = kept = 0
    for layer in range(experts[0], llm.layers):
        whole = layer_activations(llm, expert, setup, tokens, past, layer)
        kept += computed * llm.width * b if saving else whole
        learned = gradients * sum(number >= layer for number in experts) // len(experts)
        peak = max(peak, kept + (whole if saving else 0) + 3 * computed * llm.mlp * b + learned)
    answers = setup.rows * answer * llm.vocabulary * FP32
    behind = FP32 * computed * llm.width + answers + max(4 * FP32 * computed * llm.width, 2 * answers)
    cached = 0 if llm.keys == llm.attention else prefix_bytes(llm, setup.rows * (past + tokens), b)
    stacked = prefix_bytes(llm, setup.rows * past, b)
    forward = max(cached, cached + stacked - whole) if past else 0
    return max(peak, kept + behind, kept + forward)


def training_memory(
    sizes: BackboneSizes,
    expert: ExpertConfig,
    setup: Setup,
    prompt: PromptTokens,
    *,
    strategy: str = "plain",
    gpus: int = 1,
    prefixes: int = 0,
) -> TrainingMemory:
    """Bytes per GPU with E parameters trained and F of the LLM frozen.

    plain: b F (quantised: see `llm_bytes`) + 4 E weights, 8 E AdamW, 4 E gradients (beside the activations
    where micro-batches are accumulated, else growing while these go), 4 E buckets of
    DistributedDataParallel for N > 1.
    zero2: b F + b E weights and two buckets; master weights, AdamW and gradients (12 + b + 4) E / N.
    zero3: all weights b (F + E) / N too, and the layers gathered at a time, at most 10^9 weights.
    offload: what is divided by N is in the machine's memory instead.
    The encoders (fp32) are on every GPU.

    Args:
        prompt: the longest of a micro-batch. prefixes: kept prefixes, see `kept_prefixes`.
    """
    assert strategy in STRATEGIES, strategy
    b, trained, frozen = setup.bytes_per_number, expert_parameters(sizes.llm, expert), sizes.parameters.llm
    activations = activation_bytes(sizes.llm, expert, setup, prompt)
    past, _ = prompt.scope(expert.tokens)
    common = {
        "encoders": FP32 * sizes.parameters.encoders,
        "activations": activations,
        "prefixes": prefixes * prefix_bytes(sizes.llm, past, b),
    }
    if strategy == "plain":
        weights = llm_bytes(sizes.parameters, setup.bits, b)
        gradients = FP32 * trained
        if setup.accumulation == 1:  # they grow while activations go
            gradients = activation_bytes(sizes.llm, expert, setup, prompt, gradients) - activations
        buckets = FP32 * trained if gpus > 1 else 0
        return TrainingMemory(
            weights,
            expert=FP32 * trained + buckets,
            optimiser=2 * FP32 * trained,
            gradients=gradients,
            **common,
        )
    assert setup.bits == 16, "DeepSpeed knows no quantised weights"
    return _sharded(trained, frozen, b, strategy, gpus, common)


def _sharded(
    trained: int, frozen: int, b: int, strategy: str, gpus: int, common: dict[str, int]
) -> TrainingMemory:
    """DeepSpeed's strategies, see `training_memory`."""
    shared = {"optimiser": 3 * FP32 * trained, "gradients": (b + FP32) * trained}
    weights, copies = b * frozen, b * trained
    if strategy.startswith("zero3"):
        shared["llm"], shared["expert"] = weights, copies
        weights, copies = b * min(LIVE, frozen + trained), 0
    offload = strategy.endswith("offload")
    here = {name: 0 if offload else size // gpus for name, size in shared.items()}
    return TrainingMemory(
        weights + here.get("llm", 0),
        expert=copies + 2 * BUCKET * b + here.get("expert", 0),
        optimiser=here["optimiser"],
        gradients=here["gradients"],
        host=sum(shared.values()) if offload else 0,
        **common,
    )


@dataclass(frozen=True)
class InferenceMemory:
    """Bytes on one GPU while answers are generated."""

    llm: int
    encoders: int
    experts: int  # of all tasks
    keys_values: int  # of the running batch's prompts
    activations: int  # of the prefill; or what decoding adds to keys and values, where that is more

    @property
    def total(self) -> int:
        """Bytes on the GPU."""
        return sum(getattr(self, field.name) for field in fields(self))


def inference_memory(
    sizes: BackboneSizes,
    expert: ExpertConfig,
    prompt: PromptTokens,
    *,
    experts: int,
    rows: int,
    new_tokens: int,
    bits: int = 16,
    bytes_per_number: int = 2,
) -> InferenceMemory:
    """Bytes per GPU for `rows` prompts at a time, answers of up to `new_tokens`.

    LoRA experts are held in fp32 and gathered by row (`rows` copies at b) while a mixed batch runs; full
    experts are held at b. Prefill: three arrays M wide and three D wide of all tokens, fp32 logits of the
    last. Decoding: keys and values of the answers, and those of one layer twice while a token is appended.
    """
    llm, b = sizes.llm, bytes_per_number
    one, tokens = expert_parameters(llm, expert), rows * prompt.prompt
    held = experts * one * (b if expert.kind == "mlp" else FP32)
    gathered = rows * one * b if expert.kind == "lora" and experts > 1 else 0
    cache = prefix_bytes(llm, tokens, b)
    prefill = b * tokens * (3 * llm.mlp + 3 * llm.width) + FP32 * rows * llm.vocabulary
    grown = prefix_bytes(llm, rows * (prompt.prompt + new_tokens), b)
    return InferenceMemory(
        llm=llm_bytes(sizes.parameters, bits, b),
        encoders=FP32 * sizes.parameters.encoders,
        experts=held + gathered,
        keys_values=cache,
        activations=max(prefill, grown + grown // llm.layers - cache),
    )


def stored_bytes(sizes: BackboneSizes, *, chunks: int, bytes_per_number: int) -> tuple[int, int]:
    """Bytes in the feature store for one clip's frames and for one sound: tokens at b, routing mean in
    fp32."""
    frames = sizes.vision.patches * sizes.llm.width * bytes_per_number + FP32 * sizes.vision.width
    sound = chunks * sizes.aligner.queries * sizes.llm.width * bytes_per_number + FP32 * sizes.audio.width
    return frames, sound
