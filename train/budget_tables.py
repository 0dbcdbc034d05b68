"""A budget as text for a terminal, at most 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from model.planning.memory import STRATEGIES
from train.budget import Budget

GB, TF = 1e9, 1e12
TITLES = {
    "plain": "plain",
    "zero2": "ZeRO-2",
    "zero3": "ZeRO-3",
    "zero2_offload": "ZeRO-2+CPU",
    "zero3_offload": "ZeRO-3+CPU",
}


def format_budget(budget: Budget, source: str) -> str:
    """All tables, with what each number assumes."""
    parts = (
        _parameters(budget, source),
        _training(budget),
        _inference(budget),
        _flops(budget),
        _work(budget),
        _methods(budget),
    )
    return "\n\n".join(part for part in parts if part)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell, the first left and the others right aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def gigabytes(size: float) -> str:
    """Bytes as GB with two digits after the point below ten."""
    return f"{size / GB:.2f}" if size < 10 * GB else f"{size / GB:.1f}"


def _parameters(budget: Budget, source: str) -> str:
    p, expert = budget.parameters, budget.config.expert
    trained = budget.expert_parameters[expert.kind]
    frozen = p.llm + p.encoders
    rows = [("parameters, millions", "")]
    for name, count in asdict(p).items():
        if not name.startswith("llm_linear"):
            rows.append((f"  {name}", f"{count / 1e6:,.1f}"))
    rows += [
        ("  frozen together", f"{frozen / 1e6:,.1f}"),
        (f"  trained: one {expert.kind} expert", f"{trained / 1e6:,.1f}"),
    ]
    sizes = [("one expert", "parameters", "bf16 GB", "fp32 GB")]
    for kind, count in budget.expert_parameters.items():
        detail = f"rank {expert.rank}" if kind == "lora" else "full copies"
        sizes.append((f"  {kind}, {detail}", f"{count:,}", gigabytes(2 * count), gigabytes(4 * count)))
    layers = expert.layers if isinstance(expert.layers, str) else ",".join(map(str, expert.layers))
    where = f"experts on {layers} layers, {', '.join(expert.projections)}, tokens: {expert.tokens}"
    files = "expert files: LoRA in fp32, full copies in the type of the LLM's weights"
    return f"dry run: {source}\n\n{table(rows)}\n\n{table(sizes)}\n{where}\n{files}"


def _training(budget: Budget) -> str:
    config, longest = budget.config, budget.workload.longest
    rows = [("GB per GPU, training", "GPUs", *(TITLES[name] for name in STRATEGIES))]
    for row in budget.training:
        cells = [
            gigabytes(row.by_strategy[name].total) if name in row.by_strategy else "-" for name in STRATEGIES
        ]
        rows.append((f"  {row.kind}, {row.precision}", str(row.gpus), *cells))
    host = max(memory.host for row in budget.training for memory in row.by_strategy.values())
    parts = asdict(budget.memory)
    parts.pop("host")
    configured = ", ".join(f"{name} {gigabytes(size)}" for name, size in parts.items() if size)
    run = f"{config.expert.kind}, {config.precision}, plain, 1 GPU"
    lines = [
        table(rows),
        f"{config.per_device_batch} questions per GPU of {longest.prompt + longest.answer} tokens, "
        f"{config.accumulation} micro-batches a step, gradient checkpointing "
        + ("on" if config.gradient_checkpointing and config.expert.tokens == "all" else "off")
        + f";\n+CPU: up to {gigabytes(host)} GB in the machine's memory",
        f"the run as configured ({run}), GB:\n  {configured}",
    ]
    if budget.prefixes_distinct:
        lines.append(
            f"prefixes: {gigabytes(budget.prefix_each)} GB each, {budget.prefixes_kept} of "
            f"{budget.prefixes_distinct} kept"
            + (
                ""
                if budget.prefixes_kept == budget.prefixes_distinct
                else "; the others are computed every time"
            )
        )
    return "\n".join(lines)


def _inference(budget: Budget) -> str:
    formats = list(next(iter(budget.inference.values())))
    rows = [("GB per GPU, inference", *formats)]
    for kind, by_format in budget.inference.items():
        rows.append((f"  {kind} experts", *(gigabytes(by_format[name].total) for name in formats)))
    some = next(iter(budget.inference.values()))
    rows.append(("    of which the LLM", *(gigabytes(some[name].llm) for name in formats)))
    return (
        f"{table(rows)}\n{budget.workload.tasks} experts, {budget.asking.rows} questions at a time, "
        f"answers of up to {budget.asking.new_tokens} tokens; encoders in fp32"
    )


def _flops(budget: Budget) -> str:
    f, mean = budget.flops, budget.workload.mean
    rows = [("TFLOPs", "")]
    rows += [
        ("  vision tower, a frame", f"{f.frame / TF:.3g}"),
        ("  audio tower, a chunk", f"{f.chunk / TF:.3g}"),
        ("  audio aligner, a chunk", f"{f.aligner / TF:.3g}"),
        ("  a clip's frames, once ever", f"{f.clip / TF:.3g}"),
        ("  a sound, once ever", f"{f.sound / TF:.3g}"),
        (f"  prefill, {mean.prompt} tokens", f"{f.prefill / TF:.3g}"),
        (f"  answer of {mean.answer} tokens", f"{f.answer / TF:.3g}"),
        (f"  training, forward ({mean.prompt + mean.answer} tokens)", f"{f.forward / TF:.3g}"),
        ("  training, backward", f"{f.backward / TF:.3g}"),
        ("  training, recomputed (checkpointing)", f"{f.recomputed / TF:.3g}"),
    ]
    if f.prefix:
        rows.append(("  training, prefix without gradient", f"{f.prefix / TF:.3g}"))
    return table(rows)


def _work(budget: Budget) -> str:
    w, m = budget.workload, budget.machine
    lines = [
        f"{sum(w.train_questions)} training questions in {len(w.train_questions)} tasks, "
        f"{sum(w.test_questions)} test questions, {w.clips} clips of {w.frames} frames, {w.sounds} sounds",
        f"feature store: {budget.clip_bytes / 1e6:.2f} MB a clip, {budget.sound_bytes / 1e6:.2f} MB a sound, "
        f"{gigabytes(budget.store_bytes)} GB together",
    ]
    rows: list[Sequence[str]] = [
        ("GPUs", "optimiser steps", "encoding h", "training h", "evaluation h (1 GPU)")
    ]
    for run in budget.runs:
        hours = (run.encoding_hours, run.training_hours, run.evaluation_hours)
        rows.append((str(run.gpus), str(run.steps), *(f"{hour:.3g}" for hour in hours)))
    lines += ["", table(rows)]
    lines.append(
        f"{budget.config.epochs} epochs, one seed; at {m.mfu:.0%} of {m.tflops:g} TFLOP/s per GPU. "
        "Formulas and assumptions: docs/planning.md"
    )
    return "\n".join(lines)


def _methods(budget: Budget) -> str:
    """Methods to which the other tables do not apply; nothing where there are none."""
    if not budget.methods:
        return ""
    gpus = [f"h, {number} GPU" + "s" * (number > 1) for number in budget.machine.gpus]
    rows = [("trained by these methods", "parameters", "GB per GPU", "TFLOPs", *gpus)]
    for name, plan in budget.methods.items():
        parameters = "not counted" if plan.parameters is None else f"{plan.parameters:,}"
        memory = "not counted" if plan.memory is None else gigabytes(plan.memory.total)
        hours = (f"{hour:.3g}" for hour in plan.training_hours)
        flops = f"{plan.flops.repeated / TF:.3g}"
        rows.append((f"  {name}: {plan.trains}", parameters, memory, flops, *hours))
    kind, precision = budget.config.expert.kind, budget.config.precision
    return (
        f"{table(rows)}\nGB in training ({precision}, plain, 1 GPU), TFLOPs of a question in an epoch, hours "
        f"of training; the tables\nabove are of plain {kind} experts and do not hold for "
        f"{' and '.join(budget.methods)}"
    )
