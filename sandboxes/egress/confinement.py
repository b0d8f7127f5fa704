"""What the egress process gives up before it serves anybody. One measure a line, with its reason."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_CHOWN = 1 << 0

_libc = ctypes.CDLL(None, use_errno=True)


class ConfinementError(Exception):
    """A measure could not be taken; the process must not serve."""


def confine() -> None:
    """Take every measure.

    Raises:
        ConfinementError: One failed.
    """
    # The broker dies: so does this, at once. (Sent when the thread that started it ends: see `spawn`. If the
    # broker died before this line, the control socket's end of file says so.)
    set_option(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Another process of the same user reads connections' bytes from its memory, or a core file keeps them.
    set_option(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A program that it might be made to start gains rights from its file.
    set_option(_PR_SET_NO_NEW_PRIVS, 1)
    # Root's rights: only giving a socket to a container's user is needed. Without CAP_SYS_PTRACE the broker's
    # memory is out of reach, too, because the broker holds capabilities that this process does not.
    keep_capabilities(_CAP_CHOWN)
    # A service manager that stops the whole group must not cut the calls that the broker still drains: the
    # end comes from the broker, as end of file.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # No window in which a new socket or folder is open to others.
    os.umask(0o177)
    # Sockets of many calls at once.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def set_option(option: int, value: int) -> None:
    """Set one of prctl(2)'s options of this process.

    Raises:
        ConfinementError: It failed.
    """
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise ConfinementError(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}")


def keep_capabilities(kept: int) -> None:
    """Give up every capability but those of a set of bits; 0 keeps none.

    Raises:
        ConfinementError: It failed.
    """
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)) != 0:
        hint = "; the broker must run as root or with CAP_CHOWN" if kept else ""
        raise ConfinementError(f"capset failed ({os.strerror(ctypes.get_errno())}){hint}")
