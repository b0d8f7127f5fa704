"""What the supervisor gives up before it gets the token. One measure a line, with its reason."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct

UNPRIVILEGED_UID = 65_431
"""Root becomes this user, which nothing else has."""

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


class ConfinementError(Exception):
    """A measure could not be taken; the process must not get the token."""


def turn_deaf() -> None:
    """Ignore what is sent to everybody, and leave no core; the first thing of all.

    A service manager that stops the whole group, or a terminal's Ctrl-C, must not end it before the session.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)


def confine() -> None:
    """Give every right up. What has to be read as the broker's user was read before.

    Raises:
        ConfinementError: A measure failed.
    """
    if os.geteuid() == 0:
        _leave_root()
    # What it might still have of a broker that runs with some of root's rights only.
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _drop_capabilities()
    # A program that it might be made to start gains no rights from its file.
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # Another process of the same user would read the token in its memory.
    _prctl(_PR_SET_DUMPABLE, 0)


def _leave_root() -> None:
    """Become a user that owns nothing. In a user namespace without that number it stays, without rights."""
    try:
        os.setgroups([])
        os.setresgid(UNPRIVILEGED_UID, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
        os.setresuid(UNPRIVILEGED_UID, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
    except OSError:
        pass


def _drop_capabilities() -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, struct.pack("=6I", 0, 0, 0, 0, 0, 0)) != 0:
        raise ConfinementError(f"capset failed: {os.strerror(ctypes.get_errno())}")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise ConfinementError(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}")
