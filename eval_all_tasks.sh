#!/usr/bin/env bash
# Evaluate every stage of every method and write the report. On a cluster: sbatch eval_all_tasks.sh, or
# scripts/slurm/eval.sh.
#SBATCH --job-name=avqacl-eval
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --time=12:00:00
#SBATCH --output=slurm-%x-%j.out
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: [NAME=VALUE ...] bash eval_all_tasks.sh [FLAGS of evaluation/eval_all.py]

Answers the test questions after every task, without task labels, and writes RESULTS/taskK_NAME_results.json, summary.json,
summary.md, pictures and the report (report.html, .md, .tex; docs/report.md). Answers are kept as they come: started again, it
answers only what is missing.

  CHECKPOINTS=DIR   backbone (checkpoints: the published files if they are there, else the embedded tiny backbone)
  BENCHMARK=FILE    benchmark file (data_sample/avqa.json)
  OUTPUT=DIR        what train_all_tasks.sh wrote (output/NAME, NAME being the benchmark's)
  EXPERTS=DIR       given experts and anchors, such as checkpoints/AVQACL-MoE-experts, instead of OUTPUT's
  RESULTS=DIR       results and report (eval_results/NAME)
  METHODS="..."     of anchor_moe oracle sequential joint zero_shot blind replay ewc lwf olora moe_lora l2p, and the experts
                    of anchor_moe by other rules, anchor_moe_published anchor_moe_lda anchor_moe_autonomy; or all
                    (docs/methods.md; tiny backbone: the first six; else anchor_moe)
  SEEDS="0 1 2"     seeds (0)
  LAUNCH="..."      how to start Python, for several processes: LAUNCH="torchrun --nproc_per_node 8"; same bytes
  LOGS=DIR          eval_all_tasks.log and .err (logs)
  PYTHON=FILE       which Python; else the active environment, else .venv, made on first use

Flags go to evaluation/eval_all.py; --dry_run, --split val, --router lda|autonomy, --metric raw --modality_weights equal (the
published routing), --abstain with --far_level and --wordings (docs/routing.md) and --media_root DIR are common. All of them: bash eval_all_tasks.sh --flags
USAGE
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
here="$(dirname "${BASH_SOURCE[0]}")"
[ -f "$here/scripts/environment.sh" ] || here="${SLURM_SUBMIT_DIR:-.}" # sbatch runs a copy of this file
cd "$here"
source scripts/environment.sh
source scripts/logging.sh
use_environment
[ "${1:-}" != --flags ] || exec "$PYTHON" evaluation/eval_all.py --help

arguments=(--checkpoints "${CHECKPOINTS:-checkpoints}" --benchmark "${BENCHMARK:-data_sample/avqa.json}")
[ -z "${OUTPUT:-}" ] || arguments+=(--output "$OUTPUT")
[ -z "${EXPERTS:-}" ] || arguments+=(--experts "$EXPERTS")
[ -z "${RESULTS:-}" ] || arguments+=(--results "$RESULTS")
[ -z "${METHODS:-}" ] || arguments+=(--methods "$METHODS")
[ -z "${SEEDS:-}" ] || arguments+=(--seeds "$SEEDS")
read -r -a launch <<<"${LAUNCH:-$PYTHON}"

run_logged "${LOGS:-logs}/eval_all_tasks" "${launch[@]}" evaluation/eval_all.py "${arguments[@]}" "$@"
