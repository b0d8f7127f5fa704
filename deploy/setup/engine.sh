#!/usr/bin/env bash
# See to it that a Docker Engine can be used and a base image can be built.
#
# Starts nothing: what needs an engine takes the one that answers, or starts a
# private one and stops it again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/setup/messages.sh
. deploy/setup/debian.sh

if is_left_out engine; then
  say "TOOLCRIB_WITHOUT names engine: no Docker Engine is set up"
  exit 0
fi

# An engine answers at the usual socket.
answers() {
  .venv/bin/python -P deploy/setup/ping_engine.py
}

packages=()
if ! command -v dockerd >/dev/null && ! answers; then
  packages+=(docker.io containerd runc iptables)
fi
command -v mmdebstrap >/dev/null || packages+=(mmdebstrap)
if ((${#packages[@]})); then
  install_packages "No Docker Engine, or nothing to build an image with" "${packages[@]}"
fi
if ! answers && [[ $(id -u) != 0 ]]; then
  fail "No Docker Engine answers, and only root can start a private one" \
    "Start Docker's service, or run as root."
fi
