"""Answer questions without task labels: compare each sample with the anchors, let the nearest task's expert
answer.

A file of samples (published flags):

    python eval_anchor.py --data_path data_sample/test_Come_From.json --data_type vqa \\
        --output eval_results/AVQA/task0_come_results.json --model_path checkpoints/AVQACL-MoE-base \\
        --num_experts 4 --anchor_save_path output/AVQA/anchors \\
        --expert_weights_save_path output/AVQA/experts --use_anchor_mode

Several processes (torchrun --nproc_per_node 8 eval_anchor.py ...) share the questions; the results are the
same bytes. One clip:

    python eval_anchor.py --clip clip.mp4 --question "What makes the sound?"
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.asking import medium_kind
from data.command_line import add_backbone_flags, add_data_flags, main_command, open_inputs, read_all
from data.files import only_run_for, require_writable, write_json_atomic
from data.run_record import provenance, write_record
from data.samples import Sample
from evaluation.anchor_moe import AnchorMoE, Prediction, prediction_json
from evaluation.answer_book import AnswerBook, answers_beside
from evaluation.arguments import add_generation_flags, add_router_flags, generation, router_config
from evaluation.ranks import Ranks, count_jobs, fix_threads, launched
from train.dry_run import add_dry_run_flags, dry_run

log = logging.getLogger("eval_anchor")
FILE_PATIENCE, CLIP_PATIENCE = 10.0, 60.0  # seconds to wait for another run; one about a clip is soon done


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data_path", type=Path, help="sample JSON to answer")
    made.add_argument("--output", type=Path, help="results JSON: the samples with text and routing added")
    made.add_argument(
        "--data_type", default="vqa", choices=("vqa",), help="published flag; vqa is the only type"
    )
    made.add_argument(
        "--clip", type=Path, help="a video, audio or image file to ask about, instead of --data_path"
    )
    made.add_argument("--sound", type=Path, help="audio file for --clip (a video's own sound)")
    made.add_argument("--question", help="the question about --clip")
    made.add_argument("--num_experts", type=int, help="use tasks 0 to N-1 (all that are there)")
    made.add_argument(
        "--anchor_save_path", type=Path, default=Path("output/AVQA/anchors"), help="folder of anchors"
    )
    made.add_argument(
        "--expert_weights_save_path", type=Path, default=Path("output/AVQA/experts"), help="folder of experts"
    )
    made.add_argument(
        "--use_anchor_mode", action="store_true", help="published flag; routing by anchors is always on"
    )
    add_router_flags(made)
    add_generation_flags(made)
    add_backbone_flags(made)
    add_data_flags(made)
    add_dry_run_flags(made)
    return made


def main(arguments: argparse.Namespace) -> None:
    """Answer a file or one clip."""
    if arguments.dry_run:
        print(dry_run(arguments, [], [arguments.data_path] if arguments.data_path else []))
        return
    if (arguments.clip is None) == (arguments.data_path is None):
        raise ValueError("give either --data_path FILE --output FILE, or --clip FILE --question TEXT")
    if arguments.clip is not None and not arguments.question:
        raise ValueError("--clip needs --question")
    if arguments.data_path is not None and arguments.output is None:
        raise ValueError("--data_path needs --output")
    if arguments.clip is not None:
        arguments.quiet = True
        logging.disable(logging.INFO)
    else:
        require_writable(arguments.output.parent)
    patience = CLIP_PATIENCE if arguments.clip is not None else FILE_PATIENCE
    with only_run_for(answers_file(arguments), patience), launched() as ranks:
        if arguments.clip is not None:
            clip = {"audio": arguments.sound, medium_kind(arguments.clip): arguments.clip}
            show(assemble(arguments, ranks).ask(arguments.question, **clip))
            return
        samples = read_all([arguments.data_path], None, arguments)[arguments.data_path]
        moe = assemble(arguments, ranks)
        predictions = moe.predict(samples)
        if ranks.first:
            write_results(arguments, moe, samples, predictions)


def answers_file(arguments: argparse.Namespace) -> Path:
    """Where answers are kept: beside the results, those about a clip beside the features. Runs that share it
    would remove each other's begun answers; runs for two outputs in one folder share nothing."""
    if arguments.output:
        return answers_beside(arguments.output)
    return arguments.feature_store / "answers.jsonl"


def assemble(arguments: argparse.Namespace, ranks: Ranks) -> AnchorMoE:
    """The trained system."""
    inputs, backbone, preset = open_inputs(arguments)
    threads = fix_threads(arguments.threads, preset)
    jobs = count_jobs(arguments.jobs, threads, backbone.llm.device, ranks)
    return AnchorMoE.assemble(
        inputs,
        backbone,
        arguments.expert_weights_save_path,
        arguments.anchor_save_path,
        router_config(arguments),
        AnswerBook(answers_file(arguments), ranks),
        replace(generation(arguments), jobs=jobs),
        arguments.num_experts,
    )


def write_results(
    arguments: argparse.Namespace,
    moe: AnchorMoE,
    samples: Sequence[Sample],
    predictions: Sequence[Prediction],
) -> None:
    """The samples with text and routing added, and the record of the run."""
    write_json_atomic(
        arguments.output, [{**s.raw, **prediction_json(p)} for s, p in zip(samples, predictions, strict=True)]
    )
    identity = {
        "data": str(arguments.data_path),
        "router": vars(router_config(arguments)),
        "inputs": moe.inputs.identity(),
    }
    write_record(arguments.output.with_suffix(".run.json"), identity, provenance=provenance())
    log.info("%d answers in %s", len(predictions), arguments.output)


def show(prediction: Prediction) -> None:
    """Print one answer for a reader."""
    print(f"answer: {prediction.text}")
    print(f"task:   {prediction.task_id}" + ("  (far from every task)" if prediction.far else ""))
    print("scores per task, all modalities and each alone:")
    rows: dict[str, dict[int, float | None]] = {"all": {**prediction.scores}, **prediction.modality_scores}
    for name, scores in rows.items():
        cells = "  ".join(f"{task}: {'   -  ' if s is None else f'{s:6.3f}'}" for task, s in scores.items())
        print(f"  {name:6} {cells}")


if __name__ == "__main__":
    sys.exit(main_command(parser(), main))
