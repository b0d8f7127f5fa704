#!/usr/bin/env bash
# See to it that the tests' Node agent can run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/setup/messages.sh
. deploy/setup/debian.sh

if is_left_out node; then
  say "TOOLCRIB_WITHOUT names node: Node.js is not set up"
  exit 0
fi
packages=()
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
if ((${#packages[@]})); then
  install_packages "The tests' Node agent needs Node.js and npm" "${packages[@]}"
fi
