#!/usr/bin/env bash
# Benchmarks: both sides of every comparison in one run, as ratios. Options: --help.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment dev
cd "$REPO_ROOT"
export TOKENIZERS_PARALLELISM=false
exec "$PYTHON" scripts/benchmark/main.py "$@"
