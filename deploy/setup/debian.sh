# Packages of the distribution. Sourced after messages.sh, not run.

# True on Debian or Ubuntu as root: the only place where we install packages.
can_install_packages() {
  [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null &&
    grep -qE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release 2>/dev/null
}

# Say which of these packages are not installed; nothing where there is no dpkg.
missing_packages() {
  local package
  command -v dpkg-query >/dev/null || return 0
  for package in "$@"; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
      echo "$package"
  done
}

# True when the distribution has all of these packages.
has_packages() {
  local package
  for package in "$@"; do
    [[ -n $(apt-cache show --no-all-versions "$package" 2>/dev/null) ]] && continue
    apt-get -qq -o Acquire::Retries=3 update || return 1
    [[ -n $(apt-cache show --no-all-versions "$package" 2>/dev/null) ]] || return 1
  done
}

# Install packages: `install_packages REASON PACKAGE...`. No service is started.
install_packages() {
  local reason=$1 policy=/usr/sbin/policy-rc.d
  shift
  can_install_packages || fail "$reason" \
    "Install, in your system's way: $*" \
    "(as root on Debian or Ubuntu this script does it.)"
  say "$reason; installing by apt-get: $*"
  (
    # A package's own service must not start: the answer 101 is "not allowed".
    if [[ ! -e $policy ]]; then
      trap 'rm -f "$policy"' EXIT
      printf '#!/bin/sh\nexit 101\n' >"$policy"
      chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o Acquire::Retries=3 update
    apt-get -qq -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
      install --yes --no-install-recommends "$@" >/dev/null
  ) || fail "apt-get could not install: $*" "Its own message stands above."
}
