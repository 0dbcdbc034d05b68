#!/usr/bin/env bash
# Slurm: learn the tasks at the same time, one per element of a job array; the files are those of train.sh.
#SBATCH --job-name=avqacl-tasks
#SBATCH --array=0-3
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%x-%A_%a.out
set -euo pipefail

usage() {
    cat <<'USAGE'
usage, in the repository: [NAME=VALUE ...] sbatch [--array=TASKS] scripts/slurm/train_array.sh [FLAGS of train/train_all.py]

Element K runs train_all_tasks.sh for task K alone, logs in LOGS/task_K; its variables and flags apply
(bash train_all_tasks.sh --help). METHODS is anchor_moe if not set. Experts that start from earlier ones (--expert_init
previous, nearest or mean, METHODS=sequential and others that go on with one expert) cannot be trained at the same time: use train.sh.
For instance: BENCHMARK=/data/avqa.json sbatch --array=0-7%4 scripts/slurm/train_array.sh --bf16 True
USAGE
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
cd "${SLURM_SUBMIT_DIR:?run it with sbatch, see --help}"
export TASKS="${SLURM_ARRAY_TASK_ID:?run it as a job array, see --help}"
export METHODS="${METHODS:-anchor_moe}" LOGS="${LOGS:-logs}/task_$TASKS"
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # srun does not take it over by itself
exec srun bash train_all_tasks.sh "$@"
