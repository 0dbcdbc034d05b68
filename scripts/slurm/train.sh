#!/usr/bin/env bash
# Slurm: learn all tasks, one after another, each on all GPUs of one or several machines.
#SBATCH --job-name=avqacl-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gres=gpu:8
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%x-%j.out
set -euo pipefail

usage() {
    cat <<'USAGE'
usage, in the repository: [NAME=VALUE ...] sbatch [SBATCH FLAGS] scripts/slurm/train.sh [FLAGS of train/train_all.py]

Runs train_all_tasks.sh with torchrun on every machine; its variables and flags apply (bash train_all_tasks.sh --help).
Started again after a time limit, it goes on where it stopped.
  PROCESSES=N   processes per machine (the GPUs that Slurm gives)
For instance: BENCHMARK=/data/avqa.json sbatch --nodes=2 scripts/slurm/train.sh --bf16 True --deepspeed scripts/zero3.json
USAGE
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
cd "${SLURM_SUBMIT_DIR:?run it with sbatch, see --help}"
source scripts/slurm/ranks.sh
exec bash train_all_tasks.sh "$@"
