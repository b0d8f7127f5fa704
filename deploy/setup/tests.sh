#!/usr/bin/env bash
# Run all tests, in three lanes side by side: those of the sandboxes and those of whole
# installations, which wait most of the time, and all others. Each has an engine of its
# own where none answers. With arguments for pytest there is one lane.
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
whole=(tests/chaos tests/deploy tests/e2e)

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

logs=$(mktemp -d)
beside=()
stop() {
  trap - EXIT
  for lane in "${beside[@]}"; do
    kill "$lane" 2>/dev/null && wait "$lane" 2>/dev/null || true
  done
  rm -rf "$logs"
}
trap stop EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

start() {
  local name=$1
  shift
  TOOLCRIB_TESTS_ENGINE=tests-$name "${pytest[@]}" "$@" >"$logs/$name" 2>&1 &
  beside+=("$!")
}
start sandboxes "${sandboxes[@]}"
start whole "${whole[@]}" "${sandboxes[@]/#/--ignore=}"

code=0
"${pytest[@]}" "${sandboxes[@]/#/--ignore=}" "${whole[@]/#/--ignore=}" || code=$?
for lane in "${beside[@]}"; do
  wait "$lane" || code=$?
done
for name in sandboxes whole; do
  say "The tests of lane \"$name\", which ran beside these:"
  cat "$logs/$name"
done
finish "$code"
