#!/usr/bin/env bash
# Make checkpoints/tiny from nothing: about 45 minutes on two cores. Options: --help.
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment
cd "$REPO_ROOT"
export TOKENIZERS_PARALLELISM=false OMP_WAIT_POLICY=passive
exec "$PYTHON" -m scripts.make_tiny_backbone.main "$@"
