# shellcheck shell=bash
# Sourced by train.sh and eval.sh: LAUNCH starts PROCESSES processes (one per GPU) on every machine of the job.

nodes="${SLURM_JOB_NUM_NODES:-1}"
first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # srun does not take it over by itself
export LAUNCH="srun --nodes=$nodes --ntasks=$nodes --ntasks-per-node=1 torchrun --nnodes $nodes \
--nproc_per_node ${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}} --rdzv_backend c10d --rdzv_id $SLURM_JOB_ID \
--rdzv_endpoint $first:$((20000 + SLURM_JOB_ID % 20000))"
