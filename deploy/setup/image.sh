#!/usr/bin/env bash
# Build the sandboxes' base image; nothing when it is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/setup/messages.sh

if is_left_out engine; then
  say "TOOLCRIB_WITHOUT names engine: no image is built"
  exit 0
fi
exec .venv/bin/python -P deploy/setup/build_image.py
