"""Keeps what a process holds in memory out of files and out of other processes' reach.

For every process that holds a session or minted credentials: the serving broker and the session's supervisor
call `refuse_dumps` first of all. It is stdlib only, like the supervisor, and is not called in a library: what
a test or a tool does in its own process is its own business.
"""

from __future__ import annotations

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4


def refuse_dumps() -> None:
    """Let this process leave no core, and be read or traced by no process of the same user.

    The limit of core files is for all that it starts, too; it cannot be raised again. The second measure ends
    with an exec: it is this process's own. It holds also where the kernel gives cores to a program, which the
    limit does not.

    Raises:
        OSError: The kernel refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"core dumps cannot be refused ({os.strerror(number)})")
