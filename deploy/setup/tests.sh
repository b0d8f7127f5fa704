#!/usr/bin/env bash
# Run all tests, in two lanes side by side: those of the sandboxes, which wait for
# containers most of the time, and all others. Each has an engine of its own where
# none answers. With arguments for pytest there is one lane.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/setup/messages.sh

pytest=(.venv/bin/python -P -m pytest -q)
sandboxes=(
  tests/attacks/test_arena.py
  tests/contracts/test_driver_{call,life,limits,unsandboxed,violators}.py
  tests/e2e/test_{sandbox_kills,sandbox_rows,stubborn_tools,without_docker}.py
  tests/sandboxes
)

finish() {
  local code=$1
  [[ $code != 5 ]] || say "error: no test was found, which is no pass" >&2
  exit "$code"
}

if (($#)); then
  code=0
  "${pytest[@]}" "$@" || code=$?
  finish "$code"
fi

log=$(mktemp)
stop() {
  trap - EXIT
  kill "$beside" 2>/dev/null && wait "$beside" 2>/dev/null || true
  rm -f "$log"
}
TOOLCRIB_TESTS_ENGINE=tests-sandboxes "${pytest[@]}" "${sandboxes[@]}" >"$log" 2>&1 &
beside=$!
trap stop EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

code=0
"${pytest[@]}" "${sandboxes[@]/#/--ignore=}" || code=$?
say "The tests of the sandboxes, which ran beside these:"
wait "$beside" || code=$?
cat "$log"
finish "$code"
