#!/usr/bin/env bash
# Remove everything that was made in this checkout.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/setup/messages.sh

deploy/setup/stop.sh
while read -r mounted; do
  umount "$mounted"
done < <(awk -v state="$PWD/.toolcrib/" 'index($2, state) == 1 {print $2}' /proc/self/mounts | sort -r)
rm -rf --one-file-system .venv .toolcrib build .mypy_cache .ruff_cache .pytest_cache \
  .hypothesis .import_linter_cache
find . -name node_modules -prune -exec rm -rf {} + -o -name '*.egg-info' -prune -exec rm -rf {} + \
  -o -name __pycache__ -prune -exec rm -rf {} +
say "Clean"
