#!/usr/bin/env bash
# See to it that the tests' real targets can run: nginx and an OpenSSH server
# with git. The tests start their own, on loopback; the system's are not touched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. deploy/setup/messages.sh
. deploy/setup/debian.sh

packages=()
if is_left_out nginx; then
  say "TOOLCRIB_WITHOUT names nginx: it is not set up"
elif [[ ! -x /usr/sbin/nginx ]]; then
  packages+=(nginx-light)
fi
if is_left_out sshd; then
  say "TOOLCRIB_WITHOUT names sshd: no OpenSSH server is set up"
else
  [[ -x /usr/sbin/sshd ]] || packages+=(openssh-server)
  command -v ssh-keygen >/dev/null || packages+=(openssh-client)
  command -v git >/dev/null || packages+=(git)
  # It gives the server's user a name without a line in /etc/passwd.
  compgen -G '/usr/lib/*/libnss_wrapper.so' >/dev/null || packages+=(libnss-wrapper)
fi
if ((${#packages[@]})); then
  install_packages "The tests' targets need these" "${packages[@]}"
fi
