"""The model card of exported adapters: README.md with the metadata that the hub reads.

Numbers stand in it only where a summary.json is given, and only its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from data.text_features import may_be_kind
from evaluation.tables import metric_table, to_markdown
from model.moe.adapter_router import Deployment
from model.moe.expert_files import ExpertFile
from model.moe.peft_adapters import scope_warning

TAGS = ("lora", "mixture-of-experts", "continual-learning", "audio-visual-question-answering", "avqacl-moe")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class CardFacts:
    """What a card says besides measurements."""

    title: str  # such as the benchmark's name
    base_model: str  # the plain LLM: id on the hub or path
    license: str  # as the hub names it
    deployment: Deployment
    experts: Mapping[int, ExpertFile]  # by task


def model_card(facts: CardFacts, summary: Mapping[str, Any] | None = None) -> str:
    """The text of README.md.

    Args:
        summary: content of the summary.json that evaluation/eval_all.py wrote for these experts.

    Raises:
        ValueError: the summary is of another backbone, other tasks or other routing settings.
    """
    parts = [_metadata(facts), _introduction(facts), _adapters(facts), _use(facts)]
    if summary is not None:
        parts.append(_measured(facts, summary))
    return "\n\n".join(parts) + "\n"


def _metadata(facts: CardFacts) -> str:
    lines = [f"license: {facts.license}", "library_name: peft"]
    if HUB_ID.fullmatch(facts.base_model):  # the hub takes nothing else
        lines.append(f"base_model: {facts.base_model}")
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in TAGS), "---"])


def _introduction(facts: CardFacts) -> str:
    return (
        f"# {facts.title}: one LoRA expert per task, picked by the data\n\n"
        "Experts of AVQACL-MoE (continual audio-visual question answering) as PEFT adapters of the LLM "
        f"`{facts.base_model}`. No task label is given: a sample's text, video and audio features are "
        "compared with the tasks' anchors, and the nearest task's adapter answers.\n\n"
        f"Made for the backbone with identity `{facts.deployment.base_identity}` (LLM, projector and audio "
        "aligner together)."
    )


def _adapters(facts: CardFacts) -> str:
    rows = [["adapter", "task", "rank", "alpha", "layers", "projections", "acts on"]]
    for task, name in sorted(facts.deployment.adapters.items()):
        file = facts.experts[task]
        layers, projections = " ".join(map(str, file.layers)), " ".join(file.projections)
        header = file.header
        rows.append(
            [name, str(task), str(header.rank), f"{header.alpha:g}", layers, projections, header.tokens]
        )
    text = "## Adapters\n\n" + to_markdown(rows)
    for tokens in sorted({file.header.tokens for file in facts.experts.values()} - {"all"}):
        text += f"\n\n**Warning.** Adapters that act on `{tokens}` were {scope_warning(tokens)}."
    return text


def _use(facts: CardFacts) -> str:
    first = facts.deployment.adapters[min(facts.deployment.adapters)]
    router = facts.deployment.router
    return (
        "## Use\n\n"
        "```python\n"
        "from peft import PeftModel\n\n"
        f'model = PeftModel.from_pretrained(llm, FOLDER, subfolder="{first}")\n'
        "```\n\n"
        "`anchors/`, `routing.json` and `front_end/` (input embedding, projectors, tokenizer) are for "
        "`evaluation.serving.Front` of AVQACL-MoE, which makes prompts and picks adapters without the LLM's "
        f"layers. Routing: {router.router}, metric {router.metric}, modality weights "
        f"{router.modality_weights}; text feature `{facts.deployment.text_feature}`, "
        f"{facts.deployment.num_frames} frames per video."
    )


def _deciding(router: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide answers: what counts as far does so only where the router abstains."""
    unused = () if router.get("abstain") else ("far_level", "wordings")
    return {key: value for key, value in router.items() if key not in unused}


def _measured(facts: CardFacts, summary: Mapping[str, Any]) -> str:
    made, about = facts.deployment, summary["provenance"]
    inputs = dict(about.get("inputs") or {})
    # How the LLM was loaded (dtype, bits, kernel) is told, not compared: an export carries none of it.
    loading = {key: inputs.pop(key) for key in sorted(inputs.keys() - {"num_frames", "text_feature"})}
    got = {
        "base_identity": about.get("base_identity"),
        "tasks": len(summary["tasks"]),
        "inputs": inputs,
        "router": _deciding(about.get("router") or {}),
    }
    router = _deciding(asdict(made.router))
    measured = str(inputs.get("text_feature"))  # with a digest of the encoder, if any
    text_feature = measured if may_be_kind(measured, made.text_feature) else made.text_feature
    expected = {
        "base_identity": made.base_identity,
        "tasks": len(made.adapters),
        "inputs": {"num_frames": made.num_frames, "text_feature": text_feature},
        "router": {**router, "modalities": list(router["modalities"])},
    }
    wrong = [f"{key} is {got[key]}, expected {expected[key]}" for key in got if got[key] != expected[key]]
    if wrong:
        raise ValueError(f"summary of {summary['benchmark']}: not of this export: {'; '.join(wrong)}")
    seeds = " ".join(map(str, summary["seeds"]))
    loaded = ", ".join(f"{key} `{value}`" for key, value in loading.items())
    loaded = f" (LLM loaded with {loaded})" if loaded else ""
    formulas = "\n".join(f"- {name}: `{text}`" for name, text in summary["formulas"].items())
    return (
        f"## Measured\n\n{summary['benchmark']}, split `{about.get('split')}`, seeds {seeds}, commit "
        f"`{about.get('commit')}`, percent, means where there are several seeds. Measured with AVQACL-MoE's "
        f"own inference{loaded}, not through PEFT or a server. The numbers are those of its `summary.json`, "
        "which names backbone, tasks and settings but no expert files.\n\n"
        f"{to_markdown(metric_table(summary))}\n\n{formulas}"
    )
