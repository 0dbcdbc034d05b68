"""What methods need whose cells train something else than plain experts: gated branches, prompts."""

from __future__ import annotations

from collections.abc import Mapping

from model.language_model.loading import Loading
from model.language_model.prompt_pool import PoolConfig
from model.moe.expert_sites import GatedConfig
from model.planning.flops import training_flops
from model.planning.memory import fitting_prefixes, kept_prefixes, training_memory
from model.planning.pools import pool_parameters, pool_scope, pool_training_memory, prompt_training_flops
from model.planning.sizes import BackboneSizes, expert_parameters
from train.budget import BYTES, Budget, MethodPlan, all_training, distinct_prefixes, setup
from train.recipe import Recipe


def method_plans(
    recipes: Mapping[str, Recipe], budget: Budget, loading: Loading, text_feature: str
) -> dict[str, MethodPlan]:
    """Name -> plan, of those methods for which a plain expert's does not hold.

    Raises:
        ValueError: a method has nothing to make its experts of.
    """
    plans = {}
    for name, recipe in recipes.items():
        if (pool := recipe.pool) is not None:
            plans[name] = _of_pool(pool, budget, loading, query_width(budget.sizes, text_feature))
        elif isinstance(expert := recipe.expert(budget.config.expert), GatedConfig):
            plans[name] = _of_branches(expert, budget, loading)
    return plans


def query_width(sizes: BackboneSizes, text_feature: str) -> int | None:
    """Width of the queries of a prompt pool, as `MediaEncoder.routing_widths`; None where the text's is not
    the LLM's."""
    if text_feature not in ("question", "prompt") and not text_feature.startswith("hidden:"):
        return None
    return sizes.llm.width + 2 * sizes.vision.width + sizes.audio.width


def _of_branches(expert: GatedConfig, budget: Budget, loading: Loading) -> MethodPlan:
    config, workload, llm = budget.config, budget.workload, budget.sizes.llm
    b = BYTES[config.precision]
    settings = setup(config, loading.bits, b, loading.kernel)
    distinct = distinct_prefixes(workload, expert.tokens)
    kept = kept_prefixes(llm, expert, workload.longest, distinct, b, loading.prefixes.memory)
    flops = training_flops(llm, expert, workload.mean, checkpointing=config.gradient_checkpointing)
    training = all_training(config, sum(workload.train_questions), flops, kept, distinct)
    return MethodPlan(
        f"{expert.branches} branches of rank {expert.rank // expert.branches}, gates",
        expert_parameters(llm, expert),
        flops,
        training_memory(budget.sizes, expert, settings, workload.longest, prefixes=kept),
        tuple(budget.machine.hours(training, gpus) for gpus in budget.machine.gpus),
    )


def _of_pool(pool: PoolConfig, budget: Budget, loading: Loading, query: int | None) -> MethodPlan:
    config, workload, llm = budget.config, budget.workload, budget.sizes.llm
    saving = config.gradient_checkpointing and config.expert.tokens == "all"  # see AnchorLM
    flops = prompt_training_flops(llm, pool, workload.mean, checkpointing=saving)
    past, _ = pool_scope(pool, workload.longest, checkpointing=saving)
    distinct = 0 if saving else distinct_prefixes(workload, pool.place)
    kept = fitting_prefixes(llm, past, distinct, BYTES[config.precision], loading.prefixes.memory)
    memory = None
    if query is not None:
        settings = setup(config, loading.bits, BYTES[config.precision], loading.kernel)
        memory = pool_training_memory(
            budget.sizes, pool, query, settings, workload.longest, checkpointing=saving, prefixes=kept
        )
    training = all_training(config, sum(workload.train_questions), flops, kept, distinct)
    return MethodPlan(
        f"{pool.size} prompts of {pool.length} tokens, {pool.top} chosen",
        None if query is None else pool_parameters(pool, llm, query),
        flops,
        memory,
        tuple(budget.machine.hours(training, gpus) for gpus in budget.machine.gpus),
    )
