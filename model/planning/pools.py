"""What a prompt pool takes in training (model/language_model/prompt_pool.py): parameters, FLOPs, memory.

Letters: M prompts of L tokens, N of them chosen, D LLM width, Q query width; E numbers of a pool.
"""

from __future__ import annotations

from model.language_model.prompt_pool import PoolConfig
from model.planning.flops import TrainingFlops, attention, linear, llm_layer_flops
from model.planning.memory import FP32, Setup, TrainingMemory, llm_bytes, peak_activations, prefix_bytes
from model.planning.sizes import BackboneSizes, LLMSizes, PromptTokens


def pool_parameters(pool: PoolConfig, llm: LLMSizes, query: int) -> int:
    """Parameters of a prompt pool: `M L D` of the prompts, `M Q` of their keys; query: Q."""
    return pool.size * (pool.length * llm.width + query)


def pool_scope(pool: PoolConfig, prompt: PromptTokens, *, checkpointing: bool) -> tuple[int, int]:
    """Kept prefix and tokens that are computed with gradient, soft tokens among them; see `AnchorLM`."""
    past, tokens = (prompt.before, prompt.after + prompt.answer)
    if checkpointing:
        past, tokens = 0, prompt.prompt + prompt.answer
    elif pool.place == "answer":
        past, tokens = prompt.scope("answer")
    return past, tokens + pool.top * pool.length


def prompt_training_flops(
    llm: LLMSizes, pool: PoolConfig, prompt: PromptTokens, *, checkpointing: bool
) -> TrainingFlops:
    """Training the prompts of a pool on one sample, with all of the LLM frozen; the few products that choose
    prompts are left out.

    N L soft tokens more are computed. They stand before the first layer, so that backward goes through all of
    them: frozen linear layers once, attention twice. What precedes the soft tokens is a kept prefix, but not
    with checkpointing.
    """
    past, tokens = pool_scope(pool, prompt, checkpointing=checkpointing)
    layer, head = llm_layer_flops(llm, tokens, past), linear(prompt.answer, llm.width, llm.vocabulary)
    again = layer - linear(tokens, llm.mlp, llm.width) if checkpointing else 0
    return TrainingFlops(
        prefix=llm.layers * llm_layer_flops(llm, past) if past else 0,
        forward=llm.layers * layer + head,
        backward=llm.layers * (layer + attention(tokens, past + tokens, llm.attention)) + head,
        recomputed=llm.layers * again,
    )


def pool_training_memory(
    sizes: BackboneSizes,
    pool: PoolConfig,
    query: int,
    setup: Setup,
    prompt: PromptTokens,
    *,
    checkpointing: bool,
    prefixes: int = 0,
) -> TrainingMemory:
    """Bytes on one GPU with the prompts and keys of a pool trained, E numbers, without sharding.

    4 E weights, 8 E AdamW, 4 E gradients, which without accumulation come when activations have gone; beside
    the activations the chosen prompts of all rows in fp32.

    Args:
        query: width of the queries. prompt, prefixes: as in `training_memory`.
    """
    llm, b, trained = sizes.llm, setup.bytes_per_number, pool_parameters(pool, sizes.llm, query)
    past, tokens = pool_scope(pool, prompt, checkpointing=checkpointing)
    activations = peak_activations(llm, None, setup, (past, tokens), prompt.answer, checkpointing)
    activations += FP32 * setup.rows * pool.top * pool.length * llm.width
    return TrainingMemory(
        llm_bytes(sizes.parameters, setup.bits, b),
        encoders=FP32 * sizes.parameters.encoders,
        expert=FP32 * trained,
        optimiser=2 * FP32 * trained,
        gradients=max(0, FP32 * trained - (setup.accumulation == 1) * activations),
        activations=activations,
        prefixes=prefixes * prefix_bytes(llm, past, b),
    )
