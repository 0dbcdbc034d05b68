"""Train the expert and the anchor of one task; the published command line runs here word for word.

    python train/train_anchor_moe.py --model_name_or_path checkpoints/AVQACL-MoE-base \\
        --vision_tower checkpoints/clip-vit-large-patch14-336 \\
        --audio_tower checkpoints/BEATs_iter3_plus_AS2M.pt --data_path data_sample/train_Come_From.json \\
        --output_dir output/AVQA/AVQACL-MoE_task0_ckpt --cur_task 0 \\
        --anchor_save_path output/AVQA/anchors --expert_weights_save_path output/AVQA/experts

Without paths to a backbone the embedded tiny one is used. Nothing learned before is touched.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: put the repository's root on the path in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.command_line import add_backbone_flags, add_data_flags, main_command, open_inputs, read_all
from data.files import only_run_in, require_writable
from train.arguments import add_config_flags, add_reporting_flags, train_config
from train.cells import Cell
from train.checkpoints import REPLACE
from train.dry_run import add_dry_run_flags, dry_run
from train.run_cell import check_cell, run_cell
from train.workshop import open_workshop

ADVICE = f"{REPLACE} --expert_weights_save_path, --anchor_save_path and --output_dir"


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data_path", type=Path, required=True, help="training JSON of the task")
    made.add_argument("--cur_task", type=int, required=True, help="number of the task, from 0")
    made.add_argument(
        "--output_dir", type=Path, help="checkpoint and log (output/AVQA/AVQACL-MoE_taskK_ckpt)"
    )
    made.add_argument(
        "--anchor_save_path", type=Path, default=Path("output/AVQA/anchors"), help="folder of anchors"
    )
    made.add_argument(
        "--expert_weights_save_path", type=Path, default=Path("output/AVQA/experts"), help="folder of experts"
    )
    made.add_argument(
        "--overwrite", action="store_true", help="replace an expert that was made with other settings"
    )
    add_backbone_flags(made)
    add_data_flags(made)
    add_config_flags(made)
    add_reporting_flags(made)
    add_dry_run_flags(made)
    return made


def main(arguments: argparse.Namespace) -> None:
    """Train one task."""
    task = arguments.cur_task
    if task < 0:
        raise ValueError(f"--cur_task: got {task}, tasks count from 0")
    if arguments.dry_run:
        print(dry_run(arguments, [arguments.data_path], []))
        return
    checkpoint = arguments.output_dir or Path(f"output/AVQA/AVQACL-MoE_task{task}_ckpt")
    for folder in (checkpoint, arguments.expert_weights_save_path, arguments.anchor_save_path):
        require_writable(folder)
    cell = Cell(
        "anchor_moe",
        task,
        (arguments.data_path,),
        arguments.expert_weights_save_path,
        arguments.anchor_save_path,
        checkpoint,
    )
    with only_run_in(checkpoint):
        inputs, backbone, preset = open_inputs(arguments)
        shop = open_workshop(inputs, backbone, train_config(arguments, preset), arguments, ADVICE)
        check_cell(cell, shop)
        samples = read_all([arguments.data_path], None, arguments)[arguments.data_path]
        shop.encode(samples)
        run_cell(cell, shop, samples)


if __name__ == "__main__":
    sys.exit(main_command(parser(), main))
