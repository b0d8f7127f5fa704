#!/usr/bin/env bash
# Run all tests, in three lanes side by side: those of the sandboxes and those of whole
# installations, which wait most of the time, and all others. Each has an engine of its
# own where none answers. With arguments for pytest there is one lane.
#
# What fails beside others is run once more alone, and named, as CPython's own test runner
# does: lanes take each other's time. Attacks and chaos have to hold at once (not so the
# controls, which show that an attack works at all), and more than a few failures are no
# matter of time.
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
  TOOLCRIB_TESTS_FAILED=$logs/$name.failed TOOLCRIB_TESTS_ENGINE=tests-$name \
    "${pytest[@]}" "$@" >"$logs/$name" 2>&1 &
  beside+=("$!")
}
start sandboxes "${sandboxes[@]}"
start whole "${whole[@]}" "${sandboxes[@]/#/--ignore=}"

most_again=5
at_once='^tests/(attacks|chaos)/'
control='::test_works_where_a_protection_is_missing['
# What other than failing tests ended a lane (5: it found none, 2: it was cut off) stays its end.
worst() { (($1 > code)) && code=$1 || true; }

code=0
TOOLCRIB_TESTS_FAILED=$logs/rest.failed \
  "${pytest[@]}" "${sandboxes[@]/#/--ignore=}" "${whole[@]/#/--ignore=}" || worst $?
for lane in "${beside[@]}"; do
  wait "$lane" || worst $?
done
for name in sandboxes whole; do
  say "The tests of lane \"$name\", which ran beside these:"
  cat "$logs/$name"
done
if ((code == 1)); then
  mapfile -t failed < <(cat "$logs"/*.failed)
  if ((${#failed[@]} > most_again)) || printf '%s\n' "${failed[@]}" | grep -E "$at_once" | grep -qvF "$control"; then
    finish "$code"
  fi
  say "These failed beside others; once more, alone:"
  printf '    %s\n' "${failed[@]}"
  code=0
  "${pytest[@]}" "${failed[@]}" || code=$?
  ((code)) || say "All tests pass; those just named did so only alone"
fi
finish "$code"
