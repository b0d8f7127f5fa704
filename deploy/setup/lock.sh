#!/usr/bin/env bash
# Lock requirements/*.in anew, keeping the versions that are locked where they
# still fit. `lock.sh --upgrade` takes the newest ones.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

for name in bootstrap broker clients dev image ldap; do
  .venv/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes \
    --no-header --no-emit-index-url --no-emit-find-links \
    "$@" "requirements/$name.in" --output-file "requirements/$name.txt"
done
