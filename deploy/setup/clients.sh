#!/usr/bin/env bash
# See to it that the test of ordinary HTTP clients can run: curl, and a Go toolchain and
# a Node.js in a folder of their own (.toolcrib/clients).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/setup/messages.sh
. deploy/setup/debian.sh

folder=.toolcrib/clients
lock=requirements/clients.txt

if is_left_out clients; then
  say "TOOLCRIB_WITHOUT names clients: Go, Node.js and curl are not set up"
  exit 0
fi
[[ -x /usr/bin/curl ]] || install_packages "The test of HTTP clients needs curl" curl
if ! cmp --silent "$lock" "$folder/.lock"; then
  say "Installing the Go and the Node.js that $lock locks"
  rm -rf "$folder"
  .venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes \
    --target "$folder" -r "$lock"
  cp "$lock" "$folder/.lock"
fi
