#!/usr/bin/env bash
# Learn all tasks of a benchmark. On a cluster: sbatch train_all_tasks.sh, or the scripts in scripts/slurm.
#SBATCH --job-name=avqacl-train
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%x-%j.out
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: [NAME=VALUE ...] bash train_all_tasks.sh [FLAGS of train/train_all.py]

Trains one expert and one anchor per task into OUTPUT/experts and OUTPUT/anchors. What is finished and unchanged is
skipped, what was interrupted is resumed, what was made with other settings is refused before anything is touched.

  CHECKPOINTS=DIR   backbone (checkpoints: the published files if they are there, else the embedded tiny backbone)
  BENCHMARK=FILE    benchmark file (data_sample/avqa.json)
  OUTPUT=DIR        experts, anchors, checkpoints (output/NAME, NAME being the benchmark's)
  METHODS="..."     of anchor_moe sequential joint blind replay ewc lwf olora moe_lora l2p, or all (docs/methods.md; tiny
                    backbone: the first four; else anchor_moe)
  TASKS="0 2"       only these tasks (all); runs of different tasks may share OUTPUT at the same time
  SEEDS="0 1 2"     seeds (0)
  LAUNCH="..."      how to start Python, for several processes: LAUNCH="torchrun --nproc_per_node 8" or
                    LAUNCH="deepspeed --num_gpus 8" with the flag --deepspeed scripts/zero2.json, zero3.json or
                    zero3_offload.json; see docs/cluster.md
  LOGS=DIR          train_all_tasks.log and .err (logs)
  PYTHON=FILE       which Python; else the active environment, else .venv, made on first use

Flags go to train/train_all.py; --dry_run (what it would take), --num_train_epochs 5, --learning_rate 1e-3, --overwrite,
--media_root DIR and --jobs N (also --parallel N: N experts at a time on a CPU) are common.
All of them: bash train_all_tasks.sh --flags
USAGE
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
here="$(dirname "${BASH_SOURCE[0]}")"
[ -f "$here/scripts/environment.sh" ] || here="${SLURM_SUBMIT_DIR:-.}" # sbatch runs a copy of this file
cd "$here"
source scripts/environment.sh
source scripts/logging.sh
use_environment
[ "${1:-}" != --flags ] || exec "$PYTHON" train/train_all.py --help

arguments=(--checkpoints "${CHECKPOINTS:-checkpoints}" --benchmark "${BENCHMARK:-data_sample/avqa.json}")
[ -z "${OUTPUT:-}" ] || arguments+=(--output "$OUTPUT")
[ -z "${METHODS:-}" ] || arguments+=(--methods "$METHODS")
[ -z "${TASKS:-}" ] || arguments+=(--tasks "$TASKS")
[ -z "${SEEDS:-}" ] || arguments+=(--seeds "$SEEDS")
read -r -a launch <<<"${LAUNCH:-$PYTHON}"

run_logged "${LOGS:-logs}/train_all_tasks" "${launch[@]}" train/train_all.py "${arguments[@]}" "$@"
