#!/usr/bin/env bash
# End what a run that was cut off left behind in this checkout.
#
#   stop.sh --list        say which processes those are
#   stop.sh [SPARED…]     end them, but for these process ids
#
# What we start has a path below this checkout's .toolcrib/ on its command line.
# Of those, only the programs that we start are ended: not a reader's editor.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/setup/messages.sh
state=$PWD/.toolcrib/
programs='dockerd|containerd|containerd-shim.*|runc|runsc|bwrap|bao|postgres|python3?[0-9.]*'

left_over() {
  local process exe
  for process in /proc/[0-9]*; do
    exe=$(readlink "$process/exe") || continue
    [[ ${exe##*/} =~ ^($programs)$ ]] || continue
    [[ " $spared " != *" ${process#/proc/} "* ]] || continue
    grep -qaF -- "$state" "$process/cmdline" 2>/dev/null && echo "${process#/proc/}"
  done
  true
}

if [[ ${1:-} == --list ]]; then
  spared='' left_over
  exit
fi
spared=$*
for signal in TERM KILL; do
  mapfile -t pids < <(left_over)
  ((${#pids[@]})) || exit 0
  say "Ending what was left running ($signal): ${pids[*]}"
  kill -s "$signal" -- "${pids[@]}" 2>/dev/null || true
  for _ in {1..150}; do
    [[ -n $(left_over) ]] || break
    sleep 0.1
  done
done
[[ -z $(left_over) ]] || fail "still running: $(left_over | tr '\n' ' ')"
