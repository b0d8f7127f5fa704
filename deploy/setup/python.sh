#!/usr/bin/env bash
# Make .venv with exactly what requirements/dev.txt locks, by hash.
#
#   python.sh lock      interpreter, uv, locked packages
#   python.sh packages  our two distributions, editable
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/setup/messages.sh
. deploy/setup/debian.sh

# What the locks and the sandbox image are made for.
wanted=3.11

is_wanted() {
  [[ $("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) == "$wanted" ]]
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" "python$wanted" python3 "/usr/bin/python$wanted"; do
    [[ -n $candidate ]] && is_wanted "$candidate" && echo "$candidate" && return
  done
  return 1
}

make_environment() {
  local python
  if is_wanted .venv/bin/python && .venv/bin/python -c 'import pip' 2>/dev/null; then
    return
  fi
  if ! python=$(find_python); then
    install_packages "Python $wanted is missing" "python$wanted" "python$wanted-venv"
    python=$(find_python) || fail "Python $wanted is still missing" "Name it: make setup PYTHON=…"
  fi
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    install_packages "Python's venv is missing" "python$wanted-venv"
  fi
  say "Making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
}

install_lock() {
  make_environment
  say "Installing what requirements/ locks"
  .venv/bin/python -m pip --disable-pip-version-check --quiet install \
    --require-hashes --no-deps -r requirements/bootstrap.txt
  uv sync requirements/dev.txt --require-hashes
}

install_packages_of_ours() {
  say "Installing our two distributions, editable"
  # uv keeps a lock file of each folder that it builds where temporary files go.
  mkdir -p .venv/tmp
  TMPDIR=$PWD/.venv/tmp uv install --no-deps --no-build-isolation --offline \
    --editable ./proto --editable .
}

uv() {
  local verb=$1
  shift
  .venv/bin/uv pip "$verb" --quiet --python .venv/bin/python "$@"
}

case ${1:-} in
  lock) install_lock ;;
  packages) install_packages_of_ours ;;
  *) fail "unknown step: ${1:-none}" "Say: python.sh lock | packages" ;;
esac
