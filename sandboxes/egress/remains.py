"""What an older broker's egress process may have left: the process itself, and its folder.

The kernel ends the process when its broker dies. A broker that is stopped is not dead: its egress process
runs on, and could bring what a tool wrote before to its target. Whoever takes over ends it here. It is known
by the lock that it holds on its folder, so that no pid has to be written down and believed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import time
from pathlib import Path

_LOCKS = Path("/proc/locks")
_PATIENCE_SECONDS = 3.0


def end_remains(folder: Path) -> bool:
    """End the egress process that works in a folder, and remove the folder.

    Args:
        folder: What was given to `EgressProcess.start` once, by a broker that is not this one.

    Returns:
        True when no process has it any more.
    """
    root = folder / "egress"
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        shutil.rmtree(folder, ignore_errors=True)
        return True
    try:
        ended = _take_lock(descriptor)
    finally:
        os.close(descriptor)
    if ended:
        shutil.rmtree(folder, ignore_errors=True)
    return ended


def _take_lock(descriptor: int) -> bool:
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _kill_holders(os.fstat(descriptor).st_ino)
        else:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.02)


def _kill_holders(inode: int) -> None:
    """Kill the egress processes that hold a lock on an inode (/proc/locks; see proc_locks(5))."""
    for line in _LOCKS.read_text().splitlines():
        fields = line.replace("-> ", "").split()
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            pid = int(fields[4])
            if pid > 0 and _is_egress(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _is_egress(pid: int) -> bool:
    try:
        return b"sandboxes.egress" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
