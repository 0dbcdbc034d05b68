# shellcheck shell=bash
# Sourced by the drivers.

# run_logged NAME COMMAND...: run a command; its stdout and stderr go to the terminal as they come and are appended to
# NAME.log and NAME.err. Returns the command's status, after both files are complete.
run_logged() {
    local name="$1"
    shift
    mkdir -p "$(dirname "$name")"
    { "$@" 2>&1 1>&3 3>&- | tee -a "$name.err" >&2 3>&-; } 3>&1 | tee -a "$name.log"
}
