#!/usr/bin/env bash
# See to it that sandboxes can be tried on every runtime: gVisor's runsc for the
# class of strong isolation, bubblewrap for sandboxes without an engine. A demo
# and a broker with the usual settings need neither.
#
#   runtimes.sh            install what is missing and what this release has
#   runtimes.sh --without  say what TOOLCRIB_WITHOUT has to be for the tests: what
#                          it is, and what is missing here
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/setup/messages.sh
. deploy/setup/debian.sh

names=(runsc bubblewrap)
declare -A programs=([runsc]=runsc [bubblewrap]=bwrap)
declare -A packages=([runsc]=runsc [bubblewrap]="bubblewrap libseccomp2")

if [[ ${1:-} == --without ]]; then
  without=${TOOLCRIB_WITHOUT:-}
  for name in "${names[@]}"; do
    if ! is_left_out "$name" && ! command -v "${programs[$name]}" >/dev/null; then
      without=${without:+$without,}$name
    fi
  done
  echo "$without"
  exit
fi

for name in "${names[@]}"; do
  read -ra wanted <<<"${packages[$name]}"
  if is_left_out "$name"; then
    say "TOOLCRIB_WITHOUT names $name: it is not set up"
  elif command -v "${programs[$name]}" >/dev/null && [[ -z $(missing_packages "${wanted[@]}") ]]; then
    continue
  elif ! can_install_packages; then
    command -v "${programs[$name]}" >/dev/null ||
      say "${programs[$name]} is missing: ITS TESTS ARE LEFT OUT. Install, in your system's way: ${wanted[*]}"
  elif ! has_packages "${wanted[@]}"; then
    say "This release has no package of $name: ITS TESTS ARE LEFT OUT"
  else
    install_packages "The sandboxes of $name need it" "${wanted[@]}"
  fi
done
