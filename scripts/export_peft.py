"""Experts as PEFT adapters in a folder that the Hugging Face hub takes as it is, and an adapter back.

    python scripts/export_peft.py --experts output/AVQA/experts --anchors output/AVQA/anchors \\
        --benchmark data_sample/avqa.json --base_model OWNER/LLM --output output/AVQA/peft
    python scripts/export_peft.py --read output/AVQA/peft/task_0_come --output expert_task_0.pt

    README.md                 model card
    task_0_come/              adapter_config.json, adapter_model.safetensors
    anchors/                  anchor_task_K.safetensors and their statistics
    routing.json              which anchor stands for which adapter, how features are made
    front_end/                input embedding, projectors, tokenizer: a base folder without the LLM's layers

How to serve them, and what cannot be served: docs/serving.md.
"""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch

from data.benchmark import read_benchmark
from data.command_line import add_backbone_flags, backbone_paths, default_device, main_command
from data.files import read_json, require_unchanged, write_bytes_atomic
from data.folders import stored_anchor, stored_expert
from data.run_record import read_identity
from data.text_features import may_be_kind
from evaluation.anchor_moe import task_ids_in
from evaluation.arguments import add_router_flags, router_config
from evaluation.model_card import CardFacts, model_card
from evaluation.serving import FRONT_END
from model.language_model.backbone import load_backbone
from model.language_model.front_end import load_front_end, save_front_end
from model.moe.adapter_router import ANCHORS, Deployment
from model.moe.anchor_files import load_anchor, stats_path
from model.moe.anchors import Anchor
from model.moe.expert_files import ExpertFile, check_tensors, inspect_expert, read_expert, write_expert
from model.moe.expert_sites import TOKENS
from model.moe.experts import ExpertBank
from model.moe.files import read_tensor_file, write_tensor_file
from model.moe.peft_adapters import check_low_rank, read_adapter, scope_warning, write_adapter

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--experts", type=Path, help="folder of experts to export, with --anchors")
    what.add_argument(
        "--read", type=Path, metavar="ADAPTER", help="adapter folder to turn into an expert file"
    )
    made.add_argument("--output", type=Path, required=True, help="new folder, or the expert file of --read")
    made.add_argument("--anchors", type=Path, help="folder of the experts' anchors")
    made.add_argument("--benchmark", type=Path, help="benchmark file, for the tasks' names")
    made.add_argument("--base_model", help="the plain LLM: id on the hub, or path (that of --save_llm)")
    made.add_argument("--save_llm", type=Path, metavar="DIR", help="write the plain LLM too, for the server")
    made.add_argument(
        "--license", default="other", help="licence of the adapters, as the hub names it (other)"
    )
    made.add_argument("--summary", type=Path, help="summary.json of these experts, for the model card")
    made.add_argument(
        "--any_tokens", action="store_true", help="export experts of scope text or answer too, with a warning"
    )
    made.add_argument(
        "--every_layer", action="store_true", help="zeros where a layer has no expert; LoRAX needs them"
    )
    made.add_argument("--task_id", type=int, help="task of the expert file of --read (the adapter's own)")
    made.add_argument(
        "--expert_tokens",
        choices=TOKENS,
        help="scope of the expert file of --read (the adapter's own); all computes what servers compute",
    )
    add_router_flags(made)
    add_backbone_flags(made)
    return made


def main(arguments: argparse.Namespace) -> None:
    """Export, or read back."""
    if arguments.read is not None:
        read_back(arguments)
        return
    if arguments.anchors is None or not (arguments.base_model or arguments.save_llm):
        raise ValueError("--experts needs --anchors, and --base_model or --save_llm: the LLM they go on")
    output = arguments.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output}: exists; choose a new folder, so that nothing of an earlier export stays")
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        export(arguments, partial)
        partial.replace(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log.info("%s: written; adapters %s", output, ", ".join(sorted(p.name for p in output.glob("task_*"))))


def export(arguments: argparse.Namespace, folder: Path) -> None:
    """Write the whole folder."""
    tasks = task_ids_in(arguments.experts, arguments.anchors)
    paths, _ = backbone_paths(arguments)
    qformer = read_json(arguments.audio_qformer) if arguments.audio_qformer else None
    files = {task: stored_expert(arguments.experts, task) for task in tasks}
    for path in sorted(path for path in set(files.values()) if list(files.values()).count(path) > 1):
        sharing = [task for task in tasks if files[task] == path]
        log.warning("%s is merged: tasks %s get an adapter each, with the same weights", path.name, sharing)
    experts = {task: inspect_expert(path) for task, path in files.items()}
    for task, file in experts.items():
        check_low_rank(replace(file.header, task_id=task))
    check_scope(experts, arguments.any_tokens)
    check_frames(arguments.experts, tasks, arguments.num_frames)
    identity, digest = save_front_end(paths.base, folder / FRONT_END, qformer)
    front = load_front_end(replace(paths, base=folder / FRONT_END), identity, digest)
    base_model = arguments.base_model or str(arguments.save_llm)
    names = adapter_names(tasks, arguments.benchmark)
    layers = front.config["num_hidden_layers"] if arguments.every_layer else None
    for task, file in experts.items():
        wanted = replace(file.header, task_id=task, base_identity=identity)
        tensors = read_expert(files[task], wanted)
        write_adapter(folder / names[task], replace(file.header, task_id=task), tensors, base_model, layers)
    anchors = [copy_anchor(stored_anchor(arguments.anchors, task), task, identity, folder) for task in tasks]
    check_text_feature(anchors, arguments.text_feature)
    deployment = Deployment(
        adapters=names,
        router=router_config(arguments),
        text_feature=arguments.text_feature,
        num_frames=arguments.num_frames,
        base_identity=identity,
        front_end=digest,
        vision=front.encoder.vision_fingerprint,
        audio=front.encoder.audio_fingerprint,
    )
    title = read_benchmark(arguments.benchmark).name if arguments.benchmark else "AVQACL-MoE"
    facts = CardFacts(title, base_model, arguments.license, deployment, experts)
    summary = None
    if arguments.summary:
        require_unchanged(arguments.summary)
        summary = read_json(arguments.summary)
    write_bytes_atomic(folder / "README.md", model_card(facts, summary).encode())
    if arguments.save_llm is not None:
        save_llm(arguments, arguments.save_llm)
    deployment.save(folder)


def check_scope(experts: dict[int, ExpertFile], any_tokens: bool) -> None:
    """Refuse, or with --any_tokens warn of, experts that PEFT computes otherwise."""
    by_scope: dict[str, list[int]] = {}
    for task, file in experts.items():
        if file.header.tokens != "all":
            by_scope.setdefault(file.header.tokens, []).append(task)
    for tokens, tasks in by_scope.items():
        text = f"experts of tasks {tasks} were {scope_warning(tokens)}"
        if not any_tokens:
            raise ValueError(
                f"{text}. Train with --expert_tokens all to serve elsewhere, or add --any_tokens to export "
                "the weights as they are (see docs/serving.md)"
            )
        log.warning("%s", text)


def check_frames(folder: Path, tasks: list[int], num_frames: int) -> None:
    """ValueError where the record beside an expert names another number of frames."""
    for task in tasks:
        path = stored_expert(folder, task).with_suffix(".run.json")
        recorded = (read_identity(path) or {}).get("inputs", {}).get("num_frames", num_frames)
        if recorded != num_frames:
            raise ValueError(f"{path}: made with {recorded} frames per clip; add --num_frames {recorded}")


def check_text_feature(anchors: list[Anchor], text_feature: str) -> None:
    """ValueError where the anchors know of another text feature."""
    for anchor in anchors:
        kind = anchor.stats["text"].feature_kind if "text" in anchor.stats else text_feature
        if not may_be_kind(kind, text_feature):
            raise ValueError(
                f"anchor of task {anchor.task_id} has text feature {kind}; add --text_feature {kind}"
            )


def adapter_names(tasks: list[int], benchmark: Path | None) -> dict[int, str]:
    """Task -> `task_0_come`, or `task_0` without a benchmark."""
    if benchmark is None:
        return {task: f"task_{task}" for task in tasks}
    titles = {task.id: task.name for task in read_benchmark(benchmark).tasks}
    unknown = sorted(set(tasks) - set(titles))
    if unknown:
        raise ValueError(f"{benchmark}: has no tasks {unknown}; give the benchmark of these experts")
    return {t: f"task_{t}_{re.sub(r'[^a-z0-9]+', '_', titles[t].lower()).strip('_')}" for t in tasks}


def copy_anchor(path: Path, task: int, identity: str, folder: Path) -> Anchor:
    """Check an anchor and copy it with its statistics, means as safetensors."""
    anchor = load_anchor(path, task, identity)
    target = folder / ANCHORS / f"anchor_task_{task}.safetensors"
    write_tensor_file(target, read_tensor_file(path))
    if stats_path(path).is_file():
        shutil.copyfile(stats_path(path), stats_path(target))
    return anchor


def save_llm(arguments: argparse.Namespace, folder: Path) -> None:
    """Write the LLM alone, in its stored type, with its tokenizer."""
    paths, _ = backbone_paths(arguments)
    dtype = getattr(torch, str(read_json(Path(paths.base) / "config.json").get("torch_dtype", "float32")))
    qformer = read_json(arguments.audio_qformer) if arguments.audio_qformer else None
    backbone = load_backbone(paths, dtype=dtype, qformer=qformer)
    backbone.llm.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)


def read_back(arguments: argparse.Namespace) -> None:
    """Write the expert file of an adapter, checked against the backbone."""
    file, tensors = read_adapter(arguments.read)
    paths, _ = backbone_paths(arguments)
    qformer = read_json(arguments.audio_qformer) if arguments.audio_qformer else None
    backbone = load_backbone(paths, device=arguments.device or default_device(), qformer=qformer)
    header = replace(file.header, tokens=arguments.expert_tokens or file.header.tokens)
    if header.base_identity not in (None, backbone.identity):
        raise ValueError(
            f"{arguments.read}: made for base {str(header.base_identity)[:16]}, the backbone loaded is "
            f"{backbone.identity[:16]}; load the backbone it was trained on"
        )
    if header.base_identity is None:
        log.warning("%s: names no backbone; taken as trained on %s", arguments.read, paths.base)
    task = header.task_id if arguments.task_id is None else arguments.task_id
    if task is None or task < 0:
        raise ValueError(f"{arguments.read}: task is {task}; give --task_id, ids count from 0")
    shapes = ExpertBank(backbone.llm, file.config).expected_shapes()
    check_tensors(tensors, shapes, str(arguments.read))
    header = replace(header, task_id=task, base_identity=backbone.identity)
    write_expert(arguments.output, header, {key: tensors[key] for key in shapes})
    log.info("%s: expert of task %d, acts on %s", arguments.output, task, header.tokens)


if __name__ == "__main__":
    sys.exit(main_command(parser(), main))
