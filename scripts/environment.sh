# shellcheck shell=bash
# Sourced by every shell script: finds a Python with the dependencies, or makes one in .venv.
#
#   source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"   # does nothing yet, so --help stays quick
#   use_environment          # or: use_environment dev   (the tests' packages too)
#   "$PYTHON" train/train_anchor_moe.py ...
#
# use_environment sets and exports PYTHON (absolute path), puts it first on PATH, and puts the repository root
# on PYTHONPATH, so that an environment without `pip install -e .` works too. In this order it takes
#   1. $PYTHON, if set: obeyed, an error if something is missing there;
#   2. the active environment (conda, venv, or python3 on PATH), if it has every dependency;
#   3. .venv in the repository root, made or brought up to date with pip as needed.
# Two scripts started at once wait for each other; an installation that was interrupted is made anew.

REPO_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

_say() { printf '[environment] %s\n' "$*" >&2; }

# _fits PYTHON EXTRA: does this Python meet pyproject.toml? Imports nothing heavy (0.1 s).
_fits() {
    "$1" "$REPO_ROOT/scripts/check_environment.py" --quiet ${2:+--extra "$2"} 2>/dev/null
}

# _what_is_missing PYTHON EXTRA: one line naming what is missing, at most three packages.
_what_is_missing() {
    "$1" "$REPO_ROOT/scripts/check_environment.py" ${2:+--extra "$2"} 2>&1 | awk '
        NR <= 3 { text = text (NR > 1 ? "; " : "") $0 } END { print text (NR > 3 ? "; and " NR - 3 " more" : "") }'
}

_take() {
    PYTHON="$(command -v "$1")"
    export PYTHON
    PATH="$(dirname "$PYTHON"):$PATH"
    export PATH
    export PYTHONPATH="$REPO_ROOT${PYTHONPATH:+:$PYTHONPATH}"
}

# _stamp EXTRA: what a finished .venv was made from.
_stamp() {
    printf '%s %s\n' "$(sha256sum <"$REPO_ROOT/pyproject.toml" | cut -c1-64)" "${1:-base}"
}

# _is_ready EXTRA: .venv was finished for this pyproject.toml (with dev: base is there as well) and still runs.
_is_ready() {
    local stamp="$REPO_ROOT/.venv/.installed"
    [ -f "$stamp" ] && [ ! -e "$REPO_ROOT/.venv/.unfinished" ] || return 1
    grep -qxF "$(_stamp "$1")" "$stamp" || grep -qxF "$(_stamp dev)" "$stamp" || return 1
    _fits "$REPO_ROOT/.venv/bin/python" "$1"
}

# _find_base_python: a Python of 3.10 or newer to make .venv with.
_find_base_python() {
    local name
    for name in python3 python python3.14 python3.13 python3.12 python3.11 python3.10; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
            command -v "$name"
            return 0
        fi
    done
    _say "error: no Python 3.10 or newer with the venv module on PATH (python3 is:" \
        "$(python3 --version 2>/dev/null || echo none)); install one, or activate the conda environment of environment.yml"
    return 1
}

# _make_venv EXTRA: make or update .venv. Runs under the lock.
_make_venv() {
    local venv="$REPO_ROOT/.venv" extra="$1" base target log
    _is_ready "$extra" && return 0 # another script made it while this one waited
    if [ -e "$venv/.unfinished" ] || { [ -e "$venv/.installed" ] && ! "$venv/bin/python" -c '' 2>/dev/null; }; then
        _say "the last installation into .venv was interrupted or its Python is gone: making it anew"
        rm -rf "$venv"
    fi
    if [ ! -x "$venv/bin/python" ]; then
        base="$(_find_base_python)" || return 1
        _say "making .venv with $base ($("$base" --version 2>&1))"
        mkdir -p "$venv" && : >"$venv/.unfinished" && "$base" -m venv "$venv" || return 1
    elif [ -e "$venv/.installed" ]; then
        : >"$venv/.unfinished"
        _say "pyproject.toml or the wanted packages changed: updating .venv"
    fi
    target=".${extra:+[$extra]}"
    log="$venv/install.log"
    _say "pip install -e $target into .venv: several GB, some minutes; follow it in .venv/install.log"
    if ! (cd "$REPO_ROOT" && "$venv/bin/python" -m pip install --progress-bar off -e "$target") >"$log" 2>&1; then
        _say "error: pip failed; the end of .venv/install.log:"
        tail -n 20 "$log" >&2
        return 1
    fi
    if ! _fits "$venv/bin/python" "$extra"; then
        _say "error: after installing, .venv still lacks: $(_what_is_missing "$venv/bin/python" "$extra")"
        return 1
    fi
    _stamp "$extra" >"$venv/.installed"
    rm -f "$venv/.unfinished"
    _say ".venv is ready"
}

# use_environment [EXTRA]: see the top of this file. Returns 1, after a message, if there is no environment.
use_environment() {
    local extra="${1:-}" active=""
    if [ -n "${PYTHON:-}" ]; then
        if ! command -v "$PYTHON" >/dev/null; then
            _say "error: PYTHON=$PYTHON cannot be run; correct it, or unset PYTHON"
            return 1
        fi
        if ! _fits "$PYTHON" "$extra"; then
            _say "error: PYTHON=$PYTHON does not fit: $(_what_is_missing "$PYTHON" "$extra");" \
                "install into it with: $PYTHON -m pip install -e '.${extra:+[$extra]}', or unset PYTHON"
            return 1
        fi
        _take "$PYTHON"
        return 0
    fi
    for active in python3 python; do
        if command -v "$active" >/dev/null && _fits "$active" "$extra"; then
            _take "$active"
            return 0
        fi
    done
    if ! _is_ready "$extra"; then
        if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
            _say "the active environment does not fit ($(_what_is_missing python3 "$extra")): using .venv;" \
                "to use it instead: pip install -e '.${extra:+[$extra]}'"
        fi
        if ! command -v flock >/dev/null; then
            _make_venv "$extra" || return 1
        else
            (
                flock -n 9 || { _say "waiting for the installation that another script has started" && flock 9; }
                _make_venv "$extra"
            ) 9>"$REPO_ROOT/.venv.lock" || return 1
        fi
    fi
    _take "$REPO_ROOT/.venv/bin/python"
}
