#!/usr/bin/env bash
# See to it that a Docker Engine can be used and a base image can be built; and,
# where the distribution has them, gVisor's runtime and bubblewrap, which the
# classes of stronger and of engineless isolation need. A demo needs neither.
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

# Not every release has these. Without them only their own tests are left out.
install_optional() {
  local name=$1 program=$2
  shift 2
  if is_left_out "$name"; then
    say "TOOLCRIB_WITHOUT names $name: it is not set up"
  elif command -v "$program" >/dev/null && [[ -z $(missing_packages "$@") ]]; then
    return
  elif ! can_install_packages; then
    say "$program is missing: install $* for the sandboxes of $name"
  elif ! has_packages "$@"; then
    say "$program is missing, and this release has no package of it: the tests of $name are left out"
  else
    install_packages "The sandboxes of $name need it" "$@"
  fi
}

install_optional runsc runsc runsc
install_optional bubblewrap bwrap bubblewrap libseccomp2
