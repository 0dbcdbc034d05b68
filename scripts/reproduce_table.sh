#!/usr/bin/env bash
# Train what is missing of a table of methods, evaluate it, and write the table. On a cluster: docs/methods.md.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: [NAME=VALUE ...] bash scripts/reproduce_table.sh BENCHMARK METHODS SEEDS [FLAGS of both drivers]

Trains the methods' experts for all seeds (train_all_tasks.sh), answers the test questions after every task
(eval_all_tasks.sh), and writes RESULTS/summary.json, summary.md and pictures: metrics with intervals, and a paired test of
every method against anchor_moe, which is therefore always among them. What is finished is skipped and what was interrupted
is resumed, so it can be stopped and started at any time.

  BENCHMARK         benchmark file, such as data_sample/avqa.json
  METHODS           "replay ewc", or all; each is described in docs/methods.md. Those that train nothing, such as
                    anchor_moe_lda, answer with the experts of anchor_moe
  SEEDS             "0 1 2"

  STEP=NAME         train or evaluate: only this one (both, one after the other)
  TRAIN_FLAGS="..." further flags of train/train_all.py alone, such as "--ewc_lambda 100"
  EVAL_FLAGS="..."  further flags of evaluation/eval_all.py alone, such as "--split val"
  CHECKPOINTS, OUTPUT, RESULTS, LAUNCH, LOGS, PYTHON: as in the drivers (bash train_all_tasks.sh --help)

For instance, the whole table of the sample data, two experts at a time:
  bash scripts/reproduce_table.sh data_sample/avqa.json all "0 1 2" --jobs 2
USAGE
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
if [ "$#" -lt 3 ]; then
    usage >&2
    exit 2
fi
export BENCHMARK="$1" METHODS="$2" SEEDS="$3"
shift 3
[ "$METHODS" = all ] || METHODS="anchor_moe $METHODS"
read -r -a train_flags <<<"${TRAIN_FLAGS:-}"
read -r -a eval_flags <<<"${EVAL_FLAGS:-}"
here="$(dirname "${BASH_SOURCE[0]}")/.."
[ -f "$here/train_all_tasks.sh" ] || here="${SLURM_SUBMIT_DIR:-.}" # sbatch runs a copy of this file
cd "$here"

case "${STEP:-both}" in both | train | evaluate) ;; *)
    echo "STEP: got '$STEP', expected train or evaluate, or leave it out for both" >&2
    exit 2
    ;;
esac
if [ "${STEP:-both}" != evaluate ]; then
    bash train_all_tasks.sh "$@" ${train_flags[@]+"${train_flags[@]}"}
fi
if [ "${STEP:-both}" != train ]; then
    bash eval_all_tasks.sh "$@" ${eval_flags[@]+"${eval_flags[@]}"}
fi
