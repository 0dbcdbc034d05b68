#!/usr/bin/env bash
# Slurm: evaluate every stage on all GPUs of one or several machines.
#SBATCH --job-name=avqacl-eval
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gres=gpu:8
#SBATCH --time=12:00:00
#SBATCH --output=slurm-%x-%j.out
set -euo pipefail

usage() {
    cat <<'USAGE'
usage, in the repository: [NAME=VALUE ...] sbatch [SBATCH FLAGS] scripts/slurm/eval.sh [FLAGS of evaluation/eval_all.py]

Runs eval_all_tasks.sh with torchrun on every machine; its variables and flags apply (bash eval_all_tasks.sh --help).
Started again after a time limit, it goes on where it stopped.
  PROCESSES=N   processes per machine (the GPUs that Slurm gives)
For instance: BENCHMARK=/data/avqa.json sbatch scripts/slurm/eval.sh --bf16 True
USAGE
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
cd "${SLURM_SUBMIT_DIR:?run it with sbatch, see --help}"
source scripts/slurm/ranks.sh
exec bash eval_all_tasks.sh "$@"
