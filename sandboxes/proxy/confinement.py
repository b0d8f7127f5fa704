"""What the HTTP proxy gives up before it serves anybody. One measure a line, with its reason."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from sandboxes.egress.confinement import keep_capabilities, set_option

UNPRIVILEGED_UID = 65_432
"""Root becomes this user, which nothing else has: not the broker, the supervisor (65431) or a sandbox."""

MAX_MEMORY_BYTES = 2 * 1024**3
"""Of address space. A call's share is bounded by what it may have open; this holds whatever else grows."""
_MAX_FILE_BYTES = 1024 * 1024

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_M_PERTURB = -6
_FREED_BYTE = 0x5A

_libc = ctypes.CDLL(None, use_errno=True)


def confine() -> None:
    """Take every measure. What is imported later must be readable for anybody.

    Raises:
        ConfinementError: One failed.
    """
    # A service manager that stops the whole group must not cut the calls that the broker still drains: the
    # end comes from the broker, as end of file.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    _limit_resources()
    # Freed memory keeps the secrets of calls that ended: have it overwritten. It is all libc's own, because
    # the broker starts this process so that neither Python nor a thread keeps a cache (process.py).
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_PERTURB, _FREED_BYTE)
    if os.geteuid() == 0:
        _leave_root()
    # What it might still have of a broker that runs with some of root's rights only.
    set_option(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    keep_capabilities(0)
    # A program that it might be made to start gains no rights from its file.
    set_option(_PR_SET_NO_NEW_PRIVS, 1)
    # Another process of the same user reads secrets from its memory.
    set_option(_PR_SET_DUMPABLE, 0)
    # The broker dies: so does this, at once. After the change of user, which clears it. (If the broker died
    # before this line, the control socket's end of file says so.)
    set_option(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_resources() -> None:
    # A core file keeps secrets.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Memory that grows without bound ends one exchange here, and not the machine.
    _lower(resource.RLIMIT_AS, MAX_MEMORY_BYTES)
    # It writes no file; certificates go to OpenSSL through an anonymous one in memory.
    _lower(resource.RLIMIT_FSIZE, _MAX_FILE_BYTES)
    os.umask(0o177)
    # Sockets of many calls at once.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _lower(limit: int, value: int) -> None:
    _, most = resource.getrlimit(limit)
    lowest = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(limit, (lowest, lowest))


def _leave_root() -> None:
    """Become a user that owns nothing. In a user namespace without that number it stays, without rights."""
    try:
        os.setgroups([])
        os.setresgid(UNPRIVILEGED_UID, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
        os.setresuid(UNPRIVILEGED_UID, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
    except OSError:
        pass
