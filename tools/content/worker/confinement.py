"""What the worker gives up before it reads anything. One measure a line, with its reason."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct

from tools.content.worker.system_calls import load_filter

UNPRIVILEGED_UID = 65_432
"""Root becomes this user, which nothing else has."""
MAX_MEMORY_BYTES = 1024 * 1024 * 1024
NICENESS = 5

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_CLONE_NEWNET, _CLONE_NEWIPC = 0x40000000, 0x08000000

_libc = ctypes.CDLL(None, use_errno=True)


class ConfinementError(Exception):
    """A measure could not be taken; the process must not read anything."""


def confine() -> None:
    """Take every measure. Whatever is to be loaded was loaded before.

    Raises:
        ConfinementError: One failed.
        FilterFailed: The last one did.
    """
    # A service manager that stops the whole group must not cut the calls that the broker still drains: the
    # end comes from the broker, as end of file.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The calls of others come first.
    os.nice(NICENESS)
    if os.geteuid() == 0:
        _leave_root()
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    # Root's rights: none is needed. The broker's memory is out of reach because the broker holds some.
    _drop_capabilities()
    # A program that it might be made to start gains no rights from its file.
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # A parser that was taken over leaves no copy of one call's content for the next, in a file or elsewhere.
    _prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    # A document that becomes a thousand times as long in a parser ends this process and no other.
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    # No file, no socket, no pipe: nothing can be opened any more.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    # No process and no thread (root, where it could not be left, is not held by it).
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    # No signal to another worker or to a broker of the same user, no look into its memory, no program.
    load_filter()


def _leave_root() -> None:
    """Leave the network, and become a user that owns nothing. In a namespace without that number it stays."""
    _libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC)
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
